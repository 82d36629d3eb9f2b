//! Keepers: one task for each backend that has a seat or had one, and owns the backend's end.
//!
//! A keeper watches its backend and stops it once it has been replaced, put to sleep, or its session has ended. Nobody else
//! waits for the stop, so no client pays for it; the session's slot is shared with its keepers, so it is free only when
//! nothing is left of its backends. A backend that dies by itself changes the session only if it is still in the seat.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::{
    caps::Hold,
    ending::Shut,
    ports::{Backend, DetachReason, EndReason, Event, Snapshot, SpawnError, SpawnFailure, SpawnOrder, SpawnPurpose},
    registry::Shared,
    seat::{Expiry, Seat, Session},
    sync::timeout,
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

/// Where a fresh backend may sit down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// On a session that has no backend.
    Empty,
    /// In the place of this one.
    Of(&'a Arc<Seat>),
}

/// A backend that has no keeper yet. Its session's slot is taken for as long as it is there, and whoever waits for the
/// tasks of the registry waits for this too: so what is started while everything ends is not forgotten.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) backend: Arc<dyn Backend>,
    hold: Arc<Hold>,
    _awaited: TaskTrackerToken,
}

/// Starts a backend. What a spawner had begun when the session ended or the time was up is its own to clean up.
pub(crate) async fn start(
    shared: &Shared,
    session: &Session,
    snapshot: Option<Snapshot>,
    purpose: SpawnPurpose,
) -> Result<Started, StartError> {
    let begun = Instant::now();
    let awaited = shared.tasks.token();
    let hold = session.inner().hold.clone();
    let (Some(caller), Some(hold)) = (session.caller().cloned(), hold) else {
        return Err(StartError::Ended);
    };
    let order = SpawnOrder {
        caller,
        snapshot,
        tag: Arc::clone(&session.tag),
    };
    let outcome = tokio::select! {
        biased;
        () = session.ended.cancelled() => return Err(StartError::Ended),
        outcome = timeout(shared.config.start_timeout, shared.spawner.spawn(order)) => outcome,
    };
    let outcome = match outcome {
        Ok(spawned) => spawned.map_err(StartError::Spawn),
        Err(_elapsed) => Err(StartError::TimedOut),
    };
    let event = match &outcome {
        Ok(_) => Event::Spawned(purpose, Instant::now().saturating_duration_since(begun)),
        Err(error) => Event::SpawnFailed(purpose, error.failure()),
    };
    shared.observer.on(event);
    outcome.map(|backend| Started {
        backend,
        hold,
        _awaited: awaited,
    })
}

/// Gives a backend its seat and its keeper; `None` if the session has ended or the place is taken. Then the backend is
/// stopped by a keeper all the same.
pub(crate) fn sit_down(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    started: Started,
    place: Place<'_>,
) -> Option<Arc<Seat>> {
    let Started {
        backend,
        hold,
        _awaited,
    } = started;
    let expires = backend.expires_at().map(|wall| shared.expiry(wall));
    let seat = Seat::new(backend, expires);
    let taken = {
        let mut inner = session.inner();
        let free = match (place, session.seat()) {
            (Place::Empty, None) => true,
            (Place::Of(expected), Some(seated)) => Arc::ptr_eq(expected, &seated),
            (Place::Empty, Some(_)) | (Place::Of(_), None) => false,
        };
        let taken = free && inner.hold.is_some();
        if taken {
            session.put_seat(&mut inner, Some(Arc::clone(&seat)));
        }
        taken
    };
    if !taken {
        seat.retired.cancel();
    }
    let (keeper, of) = (Arc::clone(shared), Arc::clone(session));
    let kept = Arc::clone(&seat);
    let keep = async move {
        keep(&keeper, &of, &kept).await;
        drop(hold);
    };
    shared.tasks.spawn(keep.instrument(session.span.clone()));
    if !taken {
        return None;
    }
    session.woken.notify_waiters();
    shared.plan_rotation(session, &seat);
    // Counted from the last exchange: to be moved to a fresh backend is no activity.
    let last_activity = session.inner().life.last_activity();
    shared.plan_look(
        session,
        last_activity.unwrap_or_else(Instant::now) + shared.config.idle_timeout,
    );
    Some(seat)
}

/// The backend in the seat is of no use any more: the session sleeps, or ends if nothing of it is retained; one that is opening
/// is left without a backend. Nothing happens if another backend has the seat.
pub(crate) fn lost(shared: &Shared, session: &Arc<Session>, seat: &Arc<Seat>) {
    let snapshot = seat.backend.snapshot();
    let answered = seat.answered.load(std::sync::atomic::Ordering::Relaxed);
    let config = &shared.config;
    {
        let mut inner = session.inner();
        if !session.is_seated(seat) {
            return;
        }
        if !answered {
            inner.streak.failed(Instant::now(), config.backoff, config.max_backoff);
        }
        if inner.life.is_opening() {
            // Whoever opens it decides what becomes of it.
            session.put_seat(&mut inner, None);
            drop(inner);
            shared.observer.on(Event::BackendDied);
            return;
        }
        if inner.life.is_live() && !config.retain.is_zero() && snapshot.is_some() {
            inner.snapshot = snapshot;
            session.put_seat(&mut inner, None);
            drop(inner);
            shared.observer.on(Event::BackendDied);
            shared.observer.on(Event::Detached(DetachReason::BackendDied));
            tracing::info!(session = %session.tag, "the backend is gone, the session sleeps");
            shared.mark_dirty(session);
            shared.plan_sleep(session);
            return;
        }
    }
    shared.observer.on(Event::BackendDied);
    shared.end(session, EndReason::BackendDied, Shut::Whatever);
}

/// Watches a backend and sees to its end.
async fn keep(shared: &Arc<Shared>, session: &Arc<Session>, seat: &Arc<Seat>) {
    tokio::select! {
        biased;
        () = session.ended.cancelled() => {}
        () = seat.retired.cancelled() => {
            // What is in flight on it may finish; what only listens has been sent away.
            let grace = timeout(shared.config.rotate_grace, seat.empty());
            tokio::select! {
                biased;
                () = session.ended.cancelled() => {}
                () = seat.done.cancelled() => {}
                over = grace => if over.is_err() {
                    tracing::warn!(session = %session.tag, "exchanges are cut off: their backend was replaced long ago");
                }
            }
        }
        () = seat.done.cancelled() => lost(shared, session, seat),
    }
    seat.backend.stop().await;
    tracing::debug!(session = %session.tag, "backend gone");
}

impl StartError {
    /// What it is counted as.
    fn failure(&self) -> SpawnFailure {
        match self {
            Self::Spawn(SpawnError::Credentials(_)) => SpawnFailure::Credentials,
            Self::Spawn(SpawnError::Unavailable(_)) => SpawnFailure::Unavailable,
            Self::Spawn(SpawnError::Failed(_) | SpawnError::NotReady(_)) | Self::Ended => SpawnFailure::Failed,
            Self::TimedOut => SpawnFailure::TimedOut,
        }
    }
}

impl Shared {
    /// The end of a credential on the monotonic clock.
    fn expiry(&self, wall: SystemTime) -> Expiry {
        let left = wall.duration_since(self.clock.now()).unwrap_or_default();
        // A time so far off that it cannot be added is no time at all.
        const FAR: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);
        Expiry {
            at: Instant::now() + left.min(FAR),
            wall,
        }
    }
}
