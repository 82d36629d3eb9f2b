//! The keeper of a session: the one task that owns its slot and its backend's end.
//!
//! A session's keeper starts the backend, watches it, and stops it once the session has ended, whoever ended it. Nobody
//! else waits for the stop, so no client pays for it, and the slot is free only when nothing is left of the backend.
//! A backend that dies by itself ends the session, but only if it is still the one in the seat.

use std::sync::Arc;

use tokio::{sync::oneshot, time::timeout};

use crate::{
    caps::Slot,
    ports::{SpawnError, SpawnOrder},
    registry::Shared,
    seat::{Seat, Session},
    table::Reason,
};

/// Why a session has no backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The spawner has said no.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The spawner has not answered in time.
    #[error("the backend did not start in time")]
    TimedOut,
    /// The session was ended while its backend started.
    #[error("the session was ended while its backend started")]
    Ended,
}

/// Keeps a session from its first breath to the end of its backend.
///
/// The outcome of the start goes to `started`. If nobody waits for it any more, then whoever opened the session has
/// ended it on leaving, and the keeper sees that.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    session: Arc<Session>,
    slot: Slot,
    started: oneshot::Sender<Result<Arc<Seat>, StartError>>,
) {
    // Locals go in reverse order: first the slot, then the word that all is gone, on a panic too.
    let _gone = session.gone.clone().drop_guard();
    let slot = slot;
    match start(&shared, &session).await {
        Ok(seat) => {
            session.seat.store(Some(Arc::clone(&seat)));
            let _ = started.send(Ok(seat));
            watch(&shared, &session).await;
            if let Some(seat) = session.seat.swap(None) {
                seat.backend.stop().await;
            }
            tracing::debug!(session = %session.tag, "backend gone");
        }
        Err(error) => {
            shared.table.end(&session, Reason::NotOpened);
            // Before the answer: a client that is told of the failure may try again at once.
            drop(slot);
            let _ = started.send(Err(error));
        }
    }
}

/// Starts the backend. What a spawner had begun when the session ended or the time was up is its own to clean up.
async fn start(shared: &Shared, session: &Session) -> Result<Arc<Seat>, StartError> {
    let order = SpawnOrder {
        caller: session.caller.clone(),
        snapshot: None,
        tag: Arc::clone(&session.tag),
    };
    tokio::select! {
        biased;
        () = session.ended.cancelled() => Err(StartError::Ended),
        outcome = timeout(shared.config.start_timeout, shared.spawner.spawn(order)) => match outcome {
            Ok(spawned) => Ok(Seat::new(spawned?)),
            Err(_elapsed) => Err(StartError::TimedOut),
        },
    }
}

/// Returns once the session has ended.
async fn watch(shared: &Shared, session: &Session) {
    while let Some(seat) = session.seat.load_full() {
        tokio::select! {
            biased;
            () = session.ended.cancelled() => return,
            () = seat.done.cancelled() => {
                // A backend that was replaced may go without taking the session along.
                if session.is_seated(&seat) {
                    shared.table.end(session, Reason::BackendDied);
                    return;
                }
            }
        }
    }
}
