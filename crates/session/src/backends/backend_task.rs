//! The task of a backend: it watches the backend and owns its end.
//!
//! There is one for each backend. It stops the backend once that has been replaced or detached, or
//! its session has ended. Nothing else waits for the stop, so no client pays for it. The session's
//! permit is shared with these tasks and is free only when nothing is left of its backends. A
//! backend that dies by itself changes the session only if it is still the attached one.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use super::start::StartedBackend;
use crate::{
    ports::DetachReason,
    state::{AttachedBackend, Expiry, RegistryState, Retire, Session},
    sync::timeout,
};

/// Attaches a backend to its session, which has none or has `old`, and starts its task; `None` if
/// the session has ended or the place is taken. Then the task stops the backend.
pub(crate) fn attach(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    started: StartedBackend,
    old: Option<&Arc<AttachedBackend>>,
) -> Option<Arc<AttachedBackend>> {
    let StartedBackend {
        backend,
        permit,
        _awaited,
    } = started;
    let expiry = backend.expires_at().map(|wall| Expiry::new(wall, state.clock.now()));
    let attached = AttachedBackend::new(backend, expiry);
    let mut locked = session.lock();
    let is_attached = locked.lifecycle.attach(&attached, old);
    if is_attached {
        state.schedule(session, &locked.lifecycle, Instant::now());
    } else {
        attached.retire();
    }
    drop(locked);
    let task = {
        let (state, session, attached) = (Arc::clone(state), Arc::clone(session), Arc::clone(&attached));
        async move {
            watch(&state, &session, &attached).await;
            drop(permit);
        }
    };
    state.tasks.spawn(task.instrument(session.span.clone()));
    if !is_attached {
        return None;
    }
    session.attached.notify_waiters();
    Some(attached)
}

/// Watches a backend until its session gives it up or it dies, and stops it.
async fn watch(state: &Arc<RegistryState>, session: &Arc<Session>, attached: &Arc<AttachedBackend>) {
    tokio::select! {
        biased;
        () = session.ended.cancelled() => {}
        () = attached.retired.cancelled() => {
            // Exchanges in flight may finish; GET streams have ended already.
            let drained = timeout(state.config.rotate_grace, attached.drained());
            tokio::select! {
                biased;
                () = session.ended.cancelled() => {}
                () = attached.done.cancelled() => {}
                drained = drained => if drained.is_err() {
                    tracing::warn!(session = %session.tag, "requests aborted: their backend was replaced and the grace is over");
                }
            }
        }
        () = attached.done.cancelled() => state.detach(session, attached, DetachReason::BackendDied),
    }
    attached.backend.stop().await;
    tracing::debug!(session = %session.tag, "backend stopped");
}
