//! The start of a backend by the spawner of the embedder.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    ports::{Backend, Event, Snapshot, SpawnError, SpawnFailure, SpawnOrder, SpawnPurpose},
    state::{RegistryState, Session, SessionPermit},
    sync::timeout,
};

/// The reason that a backend was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartBackendError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the backend did not start in time")]
    TimedOut,
    #[error("the session ended while its backend started")]
    SessionEnded,
}

/// A backend that has no task yet. It holds the session's permit and a token of the registry's
/// tasks, so that a backend that is started while everything ends is not forgotten.
#[derive(Debug)]
pub(crate) struct StartedBackend {
    pub(crate) backend: Arc<dyn Backend>,
    pub(super) permit: Arc<SessionPermit>,
    pub(super) _awaited: TaskTrackerToken,
}

/// Starts a backend. After a timeout or the end of the session, the spawner cleans up what it had
/// begun.
pub(crate) async fn start(
    state: &RegistryState,
    session: &Session,
    snapshot: Option<Snapshot>,
    purpose: SpawnPurpose,
) -> Result<StartedBackend, StartBackendError> {
    let begun = Instant::now();
    let awaited = state.tasks.token();
    let permit = session.lock().permit.clone();
    let (Some(caller), Some(permit)) = (session.caller().cloned(), permit) else {
        return Err(StartBackendError::SessionEnded);
    };
    let order = SpawnOrder {
        caller,
        snapshot,
        tag: Arc::clone(&session.tag),
    };
    let outcome = tokio::select! {
        biased;
        () = session.ended.cancelled() => return Err(StartBackendError::SessionEnded),
        outcome = timeout(state.config.start_timeout, state.spawner.spawn(order)) => match outcome {
            Ok(spawned) => spawned.map_err(StartBackendError::Spawn),
            Err(_elapsed) => Err(StartBackendError::TimedOut),
        },
    };
    state.observer.on(match &outcome {
        Ok(_) => Event::Spawned(purpose, Instant::now().saturating_duration_since(begun)),
        Err(error) => Event::SpawnFailed(purpose, error.failure()),
    });
    outcome.map(|backend| StartedBackend {
        backend,
        permit,
        _awaited: awaited,
    })
}

impl StartBackendError {
    /// True if the backend ended at its start: a revoked credential may be the reason.
    pub(crate) fn may_be_revoked_credential(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::Failed(_)))
    }

    fn failure(&self) -> SpawnFailure {
        match self {
            Self::Spawn(SpawnError::Credentials(_)) => SpawnFailure::Credentials,
            Self::Spawn(SpawnError::Unavailable(_)) => SpawnFailure::Unavailable,
            Self::Spawn(SpawnError::Failed(_) | SpawnError::NotReady(_)) | Self::SessionEnded => SpawnFailure::Failed,
            Self::TimedOut => SpawnFailure::TimedOut,
        }
    }
}
