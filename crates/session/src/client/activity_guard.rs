//! The guard of an exchange that keeps its session from becoming dormant.

use std::sync::Arc;

use tokio::time::Instant;

use crate::state::{RegistryState, Session};

/// An exchange that was begun in the session's lifecycle. Dropping it ends the exchange. Only then
/// is it known what the exchange has changed, so its end is recorded.
#[derive(Debug)]
pub(super) struct ActivityGuard {
    state: Arc<RegistryState>,
    session: Arc<Session>,
}

impl ActivityGuard {
    pub(super) fn new(state: &Arc<RegistryState>, session: &Arc<Session>) -> Self {
        state.changes.mark_changed(session);
        Self {
            state: Arc::clone(state),
            session: Arc::clone(session),
        }
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.session.lock().lifecycle.end_exchange(Instant::now());
        self.state.changes.mark_changed(&self.session);
    }
}
