//! Revival: a session that sleeps gets a fresh backend when a request needs one.
//!
//! One revival at a time for each session: whoever comes while it is under way gets its outcome. It runs on a task of its
//! own, so that a client who goes away does not take it from the others.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::Instrument;

use crate::{
    ending::Shut,
    keeper::{self, Place, StartError, Started},
    ports::{EndReason, Event, Snapshot, SpawnError, SpawnPurpose},
    refusal::Refusal,
    registry::Shared,
    renewals::{self, Verdict},
    rotator,
    seat::{Entered, Session},
};

/// A revival: under way, or its outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flight {
    /// It goes on.
    Under,
    /// It is over.
    Over(Result<(), Unrevived>),
}

/// Why a session sleeps on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unrevived {
    /// The session has ended.
    Ended,
    /// The user has to sign in again.
    SignIn,
    /// No backend can be had now.
    Unavailable,
    /// The backend did not start.
    NotStarted,
    /// The session's backends keep ending.
    Backoff(Duration),
}

/// A backend of the session, woken first if it sleeps.
///
/// # Errors
///
/// What the client is told instead.
pub(crate) async fn enter(shared: &Arc<Shared>, session: &Arc<Session>) -> Result<Entered, Refusal> {
    let mut waited = None;
    loop {
        if let Some(seat) = session.seat() {
            if seat.backend.is_gone() {
                keeper::lost(shared, session, &seat);
                continue;
            }
            if seat.expires.is_some_and(|expiry| expiry.at <= Instant::now()) {
                rotator::expire(shared, session, &seat);
                continue;
            }
            if let Some(entered) = seat.enter() {
                if let Some(since) = waited {
                    let waited = Instant::now().saturating_duration_since(since);
                    shared.observer.on(Event::Waited(waited));
                    tracing::debug!(session = %session.tag, ?waited, "a request has waited for its backend");
                }
                return Ok(entered);
            }
            // It has just been replaced: whoever does that holds the lock until the new one is there.
            drop(session.inner());
            continue;
        }
        let since = *waited.get_or_insert_with(Instant::now);
        let Some(mut flight) = join(shared, session, since)? else {
            continue;
        };
        let outcome = match flight.wait_for(|flight| matches!(flight, Flight::Over(_))).await {
            Ok(flight) => *flight,
            // The task was dropped with the runtime.
            Err(_) => Flight::Under,
        };
        match outcome {
            Flight::Over(Ok(())) => {}
            Flight::Over(Err(why)) => {
                let waited = Instant::now().saturating_duration_since(since);
                shared.observer.on(Event::Waited(waited));
                return Err(refusal(shared, why));
            }
            Flight::Under => return Err(Refusal::Internal),
        }
    }
}

/// Joins the revival of a session, or begins one; `None` if one has just ended with a backend in the seat.
fn join(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    since: Instant,
) -> Result<Option<watch::Receiver<Flight>>, Refusal> {
    let (flight, begun) = {
        let mut inner = session.inner();
        // Asked again under the lock: a revival that was there a moment ago may have landed.
        if session.seat().is_some() {
            return Ok(None);
        }
        if !inner.life.is_live() {
            let revoked = inner.ending == Some(EndReason::Revoked);
            drop(inner);
            let why = if revoked { Unrevived::SignIn } else { Unrevived::Ended };
            return Err(refusal(shared, why));
        }
        match &inner.flight {
            Some(flight) => (flight.clone(), None),
            None => {
                if let Some(wait) = inner.streak.wait(Instant::now()) {
                    drop(inner);
                    shared.observer.on(Event::BackedOff);
                    return Err(refusal(shared, Unrevived::Backoff(wait)));
                }
                let (tell, flight) = watch::channel(Flight::Under);
                inner.flight = Some(flight.clone());
                (flight, Some(tell))
            }
        }
    };
    if let Some(tell) = begun {
        let (shared, session) = (Arc::clone(shared), Arc::clone(session));
        let tasks = shared.tasks.clone();
        let span = session.span.clone();
        let revival = async move {
            let landing = Landing(&session);
            let outcome = revive(&shared, &session).await;
            let event = match outcome {
                Ok(()) => Event::Revived(Instant::now().saturating_duration_since(since)),
                Err(_) => Event::RevivalFailed,
            };
            shared.observer.on(event);
            // First off the session, then told: who comes after the outcome is known begins anew.
            drop(landing);
            tell.send_replace(Flight::Over(outcome));
        };
        tasks.spawn(revival.instrument(span));
    }
    Ok(Some(flight))
}

/// Takes a revival off its session, also when its task panics.
struct Landing<'a>(&'a Session);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.0.inner().flight = None;
    }
}

async fn revive(shared: &Arc<Shared>, session: &Arc<Session>) -> Result<(), Unrevived> {
    let Some(snapshot) = snapshot(shared, session).await? else {
        tracing::warn!(session = %session.tag, "nothing is left to revive the session from");
        shared.end(session, EndReason::Unrevivable, Shut::Whatever);
        return Err(Unrevived::Ended);
    };
    match start(shared, session, snapshot).await {
        Ok(started) => {
            // Only a revival gives a sleeping session a backend; the seat is taken only if it has ended.
            match keeper::sit_down(shared, session, started, Place::Empty) {
                Some(_) => {
                    tracing::info!(session = %session.tag, "session revived");
                    Ok(())
                }
                None => Err(failed(shared, session, &StartError::Ended)),
            }
        }
        Err(error) => Err(failed(shared, session, &error)),
    }
}

/// Starts a backend, and once more if the first one ended at its start and the credential could be renewed.
async fn start(shared: &Arc<Shared>, session: &Session, snapshot: Snapshot) -> Result<Started, StartError> {
    let mark = shared.renewals.mark();
    let started = keeper::start(shared, session, Some(snapshot.clone()), SpawnPurpose::Revival).await;
    let (Err(StartError::Spawn(SpawnError::Failed(_))), Some(credentials)) = (&started, session.credentials()) else {
        return started;
    };
    match renewals::ask(shared, &session.user, credentials, mark).await {
        Verdict::Again => {
            tracing::info!(session = %session.tag, "once more with a renewed credential");
            keeper::start(shared, session, Some(snapshot), SpawnPurpose::Revival).await
        }
        // The session has been ended with its user.
        Verdict::SignIn | Verdict::AsItIs => started,
    }
}

/// What to revive the session from: as it is known here, or else as its record has it.
async fn snapshot(shared: &Shared, session: &Session) -> Result<Option<Snapshot>, Unrevived> {
    if let Some(snapshot) = session.inner().snapshot.clone() {
        return Ok(Some(snapshot));
    }
    match shared.journal.snapshot(session.key).await {
        Ok(snapshot) => Ok(snapshot),
        Err(crate::ports::RecordsError::Damaged(error)) => {
            tracing::warn!(session = %session.tag, error, "the record of the session cannot be read");
            Ok(None)
        }
        Err(error @ crate::ports::RecordsError::Unavailable(_)) => {
            tracing::warn!(session = %session.tag, reason = describe(&error), "the record of the session cannot be had now");
            Err(Unrevived::Unavailable)
        }
    }
}

fn failed(shared: &Shared, session: &Session, error: &StartError) -> Unrevived {
    let reason = describe(error);
    match error {
        StartError::Spawn(SpawnError::Credentials(_)) => {
            tracing::info!(session = %session.tag, reason, "the user has to sign in again");
            shared.end_user(&session.user);
            Unrevived::SignIn
        }
        // Whatever has become of the backend: the end of a grant often comes before the failure that it causes.
        _ if session.is_revoked() => Unrevived::SignIn,
        StartError::Spawn(SpawnError::Unavailable(_)) => {
            tracing::warn!(session = %session.tag, reason, "no backend can be started now");
            Unrevived::Unavailable
        }
        StartError::Ended => Unrevived::Ended,
        StartError::Spawn(SpawnError::Failed(_) | SpawnError::NotReady(_)) | StartError::TimedOut => {
            tracing::warn!(session = %session.tag, reason, "the session was not revived");
            let config = &shared.config;
            let mut inner = session.inner();
            inner.streak.failed(Instant::now(), config.backoff, config.max_backoff);
            Unrevived::NotStarted
        }
    }
}

fn refusal(shared: &Shared, why: Unrevived) -> Refusal {
    match why {
        Unrevived::Ended if shared.table.is_closed() => Refusal::Stopping,
        Unrevived::Ended => Refusal::Ended,
        Unrevived::SignIn => Refusal::SignIn,
        Unrevived::Unavailable => Refusal::Unavailable,
        Unrevived::NotStarted => Refusal::NotStarted,
        Unrevived::Backoff(wait) => Refusal::KeepsEnding { retry_after: wait },
    }
}

/// An error with its causes, for the log.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
