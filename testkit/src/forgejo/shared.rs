//! The state that the handle and the endpoints share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

use super::instance::{Instance, seconds};

pub(super) struct Shared {
    /// Each endpoint keeps the instance consistent at every point that could panic, so a poisoned
    /// lock is used on: the panic surfaces when the server stops. Never held across an await.
    instance: Mutex<Instance>,
    /// Notified when a request arrives, and again when it took effect.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn new(instance: Instance) -> Arc<Self> {
        Arc::new(Self {
            instance: Mutex::new(instance),
            changed: Notify::new(),
        })
    }

    pub(super) fn instance(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of this server's clock, in seconds since the epoch.
    pub(super) fn now(&self) -> i64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the double's own clock, read here only and passed on as an argument"
        )]
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        seconds(elapsed).saturating_add(self.instance().clock_skew)
    }
}
