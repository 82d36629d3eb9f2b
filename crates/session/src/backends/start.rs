//! The start of a backend by the spawner of the embedder.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    error_chain::error_chain,
    ports::{Backend, BoxError, Event, SessionError, Snapshot, SpawnError, SpawnFailure, SpawnOrder, SpawnPurpose},
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
    #[error("the backend ended before it had answered the handshake")]
    BackendDied,
    #[error("the answer to initialize cannot be read")]
    Unreadable(#[source] BoxError),
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
    let spawned = tokio::select! {
        biased;
        () = session.ended.cancelled() => return Err(StartBackendError::SessionEnded),
        spawned = timeout(state.config.start_timeout, state.spawner.spawn(order)) => spawned,
    };
    let failure = match &spawned {
        Ok(Ok(_)) => None,
        Ok(Err(SpawnError::Credentials(_))) => Some(SpawnFailure::Credentials),
        Ok(Err(SpawnError::Unavailable(_))) => Some(SpawnFailure::Unavailable),
        Ok(Err(SpawnError::Failed(_) | SpawnError::NotReady(_) | SpawnError::Unfit(_) | SpawnError::Missing(_))) => {
            Some(SpawnFailure::Failed)
        }
        Err(_elapsed) => Some(SpawnFailure::TimedOut),
    };
    let time = Instant::now().saturating_duration_since(begun);
    state.observer.on(match failure {
        None => Event::Spawned(purpose, time),
        Some(failure) => Event::SpawnFailed(purpose, failure),
    });
    Ok(StartedBackend {
        backend: spawned.map_err(|_elapsed| StartBackendError::TimedOut)??,
        permit,
        _awaited: awaited,
    })
}

impl StartBackendError {
    /// True if the backend ended at its start: a revoked credential may be the reason.
    pub(super) fn may_be_revoked_credential(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::Failed(_)) | Self::BackendDied)
    }

    /// Logs the error, and says how the requests that wait for the backend are answered.
    pub(crate) fn into_session_error(self, state: &RegistryState, session: &Session) -> SessionError {
        let (tag, reason) = (&session.tag, error_chain(&self));
        match self {
            Self::Spawn(SpawnError::Credentials(_)) => {
                tracing::info!(session = %tag, reason, "backend not started: the user has to sign in again");
                SessionError::SignInRequired
            }
            Self::SessionEnded | Self::BackendDied | Self::Unreadable(_) if state.table.is_closed() => {
                SessionError::ShuttingDown
            }
            // Whatever failed: the end of a grant often comes before the failure that it causes.
            _ if session.is_revoked() => {
                tracing::info!(session = %tag, reason, "backend not started: the user has to sign in again");
                SessionError::SignInRequired
            }
            Self::SessionEnded => SessionError::Ended,
            Self::Spawn(SpawnError::Unavailable(_)) => {
                tracing::warn!(session = %tag, reason, "no backend can be started now");
                SessionError::Unavailable
            }
            Self::Spawn(
                SpawnError::Failed(_) | SpawnError::NotReady(_) | SpawnError::Unfit(_) | SpawnError::Missing(_),
            )
            | Self::TimedOut
            | Self::BackendDied
            | Self::Unreadable(_) => {
                tracing::warn!(session = %tag, reason, "the backend of the session did not start");
                let now = Instant::now();
                let backoff = &mut session.lock().lifecycle.backoff;
                backoff.record_failure(now, &state.config);
                let retry_after = backoff.remaining(now).unwrap_or_default();
                SessionError::NotStarted { retry_after }
            }
        }
    }
}
