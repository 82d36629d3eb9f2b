//! The start of a server by the conversation of its session.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    error_chain::error_chain,
    ports::{
        Conversation, Event, Server, ServerNumber, SessionError, SpawnError, SpawnFailure, SpawnPurpose, StartOrder,
    },
    state::{RegistryState, Session, Share},
    sync::timeout,
};

/// The reason that a server was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the backend did not start in time")]
    TimedOut,
    #[error("the session ended while its backend started")]
    SessionEnded,
    #[error("the backend ended before it had answered the handshake")]
    BackendDied,
}

/// A server that has no keeper yet. It holds the session's share and a token of the registry's
/// tasks, so that a server that is started while everything ends is not forgotten.
#[derive(Debug)]
pub(crate) struct StartedServer {
    pub(super) number: ServerNumber,
    pub(super) server: Arc<dyn Server>,
    pub(super) share: Share,
    pub(super) _awaited: TaskTrackerToken,
}

/// Starts a server. After a timeout or the end of the session, the conversation cleans up what it
/// had begun.
pub(crate) async fn start(
    state: &RegistryState,
    session: &Session,
    conversation: &Arc<dyn Conversation>,
    purpose: SpawnPurpose,
) -> Result<StartedServer, StartError> {
    let begun = Instant::now();
    let awaited = state.tasks.token();
    let (number, share) = {
        let mut locked = session.lock();
        (locked.lifecycle.next_server(), locked.share.clone())
    };
    let (Some(caller), Some(share)) = (session.caller().cloned(), share) else {
        return Err(StartError::SessionEnded);
    };
    let order = StartOrder {
        number,
        caller,
        tag: Arc::clone(&session.tag),
    };
    let starting = Arc::clone(conversation).start(order);
    let started = tokio::select! {
        biased;
        () = session.ended.cancelled() => return Err(StartError::SessionEnded),
        started = timeout(state.config.start_timeout, starting) => started,
    };
    let failure = match &started {
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
    Ok(StartedServer {
        number,
        server: started.map_err(|_elapsed| StartError::TimedOut)??,
        share,
        _awaited: awaited,
    })
}

impl StartError {
    /// True if the server ended at its start: a revoked credential may be the reason.
    pub(super) fn may_be_revoked_credential(&self) -> bool {
        matches!(self, Self::Spawn(SpawnError::Failed(_)) | Self::BackendDied)
    }

    /// Logs the error, and says how the calls that wait for the server are answered.
    pub(super) fn into_session_error(self, state: &RegistryState, session: &Session) -> SessionError {
        let (tag, reason) = (&session.tag, error_chain(&self));
        match self {
            Self::Spawn(SpawnError::Credentials(_)) => {
                tracing::info!(session = %tag, reason, "backend not started: the user has to sign in again");
                SessionError::SignInRequired
            }
            Self::SessionEnded | Self::BackendDied if state.table.is_closed() => SessionError::ShuttingDown,
            // Whatever failed: the end of a grant often comes before the failure that it causes.
            _ if session.is_revoked() => {
                tracing::info!(session = %tag, reason, "backend not started: the user has to sign in again");
                SessionError::SignInRequired
            }
            Self::SessionEnded => SessionError::Ended,
            Self::Spawn(SpawnError::Unfit(_)) => {
                tracing::warn!(session = %tag, reason, "session cannot be revived");
                SessionError::Ended
            }
            Self::Spawn(SpawnError::Unavailable(_)) => {
                tracing::warn!(session = %tag, reason, "no backend can be started now");
                SessionError::Unavailable
            }
            Self::Spawn(SpawnError::Failed(_) | SpawnError::NotReady(_) | SpawnError::Missing(_))
            | Self::TimedOut
            | Self::BackendDied => {
                tracing::warn!(session = %tag, reason, "the backend of the session did not start");
                let retry_after = state.record_failure(session, &mut session.lock(), Instant::now());
                SessionError::NotStarted { retry_after }
            }
        }
    }
}
