//! The same as the scheduler of the tests has it. No time passes there: a limit is never reached,
//! and a sleep has no end.
//!
//! Left out are the insides of tokio's notifications, watches, task trackers and cancellation
//! tokens: each call of one is one step here.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

pub(crate) use shuttle::sync::{
    Mutex, MutexGuard, Once, RwLock, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

/// Tasks that can be waited for.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(TaskTracker);

/// A limit that was reached.
#[derive(Debug)]
pub(crate) struct Elapsed;

impl Tasks {
    pub(crate) fn new() -> Self {
        Self(TaskTracker::new())
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(self.0.track_future(task)));
    }

    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.0.token()
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }

    pub(crate) async fn wait(&self) {
        self.0.wait().await;
    }
}

pub(crate) async fn timeout<T>(_limit: Duration, of: impl Future<Output = T>) -> Result<T, Elapsed> {
    Ok(of.await)
}

pub(crate) async fn timeout_at<T>(_deadline: Instant, of: impl Future<Output = T>) -> Result<T, Elapsed> {
    Ok(of.await)
}

pub(crate) async fn sleep_until(_deadline: Instant) {
    std::future::pending::<()>().await;
}

pub(crate) async fn sleep(_time: Duration) {
    std::future::pending::<()>().await;
}
