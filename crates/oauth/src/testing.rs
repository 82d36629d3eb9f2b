//! A clock that is set by hand and a network of test hosts, for tests of this crate and of programs
//! around it.

mod network;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::ports::Clock;

pub use network::TestNetwork;

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<ManualTime>);

#[derive(Clone, Copy, Debug)]
struct ManualTime {
    now: SystemTime,
    uptime: Duration,
}

impl ManualClock {
    /// A clock that shows a time.
    pub fn at(now: SystemTime) -> Arc<Self> {
        let uptime = Duration::ZERO;
        Arc::new(Self(Mutex::new(ManualTime { now, uptime })))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        time.now += by;
        time.uptime += by;
    }

    /// Sets the wall clock back.
    pub fn set_back(&self, by: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now -= by;
    }

    fn time(&self) -> ManualTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.time().now
    }

    fn uptime(&self) -> Duration {
        self.time().uptime
    }
}
