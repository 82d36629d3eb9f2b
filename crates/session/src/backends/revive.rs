//! Revival: a dormant session gets a new backend when a request needs one.
//!
//! There is one revival at a time for each session, and concurrent requests share its outcome. It
//! runs on a task of its own, so that a client that goes away does not cancel it for the others.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use super::{
    backend_task,
    renew::retry_after_renewal,
    start::{StartBackendError, start},
};
use crate::{
    error_chain::error_chain,
    ports::{DetachReason, EndReason, Event, RecordsError, SessionError, Snapshot, SpawnError, SpawnPurpose},
    state::{
        AttachedBackend, EndCondition, InFlightGuard, JoinRevival, RegistryState, RevivalReceiver, RevivalSender,
        Session,
    },
};

/// Begins an exchange on the backend of a session, which is revived first if it is dormant.
/// `backend` is the session's backend as the caller has just read it.
///
/// # Errors
///
/// [`SessionError`] if the session gets no backend.
pub(crate) async fn begin_exchange(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    mut backend: Option<Arc<AttachedBackend>>,
) -> Result<InFlightGuard, SessionError> {
    let mut waiting_since = None;
    loop {
        if let Some(attached) = backend.take().or_else(|| session.backend()) {
            if attached.backend.is_gone() {
                state.detach(session, &attached, DetachReason::BackendDied);
            } else if attached.expiry.is_some_and(|expiry| expiry.at <= Instant::now()) {
                state.detach(session, &attached, DetachReason::Expired);
            } else if let Some(guard) = attached.begin_exchange() {
                if let Some(since) = waiting_since {
                    let waited = Instant::now().saturating_duration_since(since);
                    state.observer.on(Event::Waited(waited));
                    tracing::debug!(session = %session.tag, ?waited, "request waited for its backend");
                }
                return Ok(guard);
            }
            // It is no longer the session's: look again.
            continue;
        }
        let since = *waiting_since.get_or_insert_with(Instant::now);
        let Some(mut revival) = join(state, session, since)? else {
            continue;
        };
        let outcome = match revival.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(Ok(())),
            Err(_) => return Err(SessionError::Aborted),
        };
        if let Err(error) = outcome {
            let waited = Instant::now().saturating_duration_since(since);
            state.observer.on(Event::Waited(waited));
            return Err(error);
        }
    }
}

/// Joins the revival of a session, or begins one; `None` if the session has a backend.
fn join(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    since: Instant,
) -> Result<Option<RevivalReceiver>, SessionError> {
    let joined = session.lock().lifecycle.join_revival(Instant::now());
    match joined {
        JoinRevival::Attached => Ok(None),
        JoinRevival::Joined(receiver) => Ok(Some(receiver)),
        JoinRevival::Begun(sender, receiver) => {
            let task = run(Arc::clone(state), Arc::clone(session), since, sender, receiver.clone());
            state.tasks.spawn(task.instrument(session.span.clone()));
            Ok(Some(receiver))
        }
        JoinRevival::Refused(SessionError::Ended) if state.table.is_closed() => Err(SessionError::ShuttingDown),
        JoinRevival::Refused(error @ SessionError::BackingOff(_)) => {
            state.observer.on(Event::BackedOff);
            Err(error)
        }
        JoinRevival::Refused(error) => Err(error),
    }
}

async fn run(
    state: Arc<RegistryState>,
    session: Arc<Session>,
    since: Instant,
    sender: RevivalSender,
    receiver: RevivalReceiver,
) {
    let guard = RevivalGuard(&session, receiver);
    let outcome = revive(&state, &session).await;
    state.observer.on(match outcome {
        Ok(()) => Event::Revived(Instant::now().saturating_duration_since(since)),
        Err(_) => Event::RevivalFailed,
    });
    // Finished before it is announced: a request that comes after the announcement begins another
    // one.
    drop(guard);
    sender.send_replace(Some(outcome));
}

/// Finishes a revival when it is dropped, also by a panic.
struct RevivalGuard<'a>(&'a Session, RevivalReceiver);

impl Drop for RevivalGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().lifecycle.finish_revival(&self.1);
    }
}

async fn revive(state: &Arc<RegistryState>, session: &Arc<Session>) -> Result<(), SessionError> {
    let Some(snapshot) = load_snapshot(state, session).await? else {
        tracing::warn!(session = %session.tag, "session cannot be revived: there is no snapshot of it");
        state.end(session, EndReason::Unrevivable, EndCondition::Always);
        return Err(SessionError::Ended);
    };
    let attempt = || start(state, session, Some(snapshot.clone()), SpawnPurpose::Revival);
    let started = retry_after_renewal(state, session, attempt).await;
    // Only a revival gives a dormant session a backend: the place is not free only if the session
    // has ended.
    let attached = started
        .and_then(|started| backend_task::attach(state, session, started, None).ok_or(StartBackendError::SessionEnded));
    if let Err(error) = attached {
        if let StartBackendError::Spawn(SpawnError::Credentials(_)) = error {
            state.end_user(&session.user);
        }
        return Err(error.into_session_error(state, session));
    }
    tracing::info!(session = %session.tag, "session revived");
    Ok(())
}

/// The snapshot to revive the session from: the latest one here, or else that of its record.
async fn load_snapshot(state: &RegistryState, session: &Session) -> Result<Option<Snapshot>, SessionError> {
    let snapshot = session.lock().lifecycle.snapshot().cloned();
    let (None, Some(records)) = (&snapshot, &state.records) else {
        return Ok(snapshot);
    };
    match records.snapshot(session.key).await {
        Ok(snapshot) => Ok(snapshot),
        Err(RecordsError::Damaged(error)) => {
            tracing::warn!(session = %session.tag, error, "session record cannot be read");
            Ok(None)
        }
        Err(error @ RecordsError::Unavailable(_)) => {
            tracing::warn!(session = %session.tag, reason = error_chain(&error), "session record is not available now");
            Err(SessionError::Unavailable)
        }
    }
}
