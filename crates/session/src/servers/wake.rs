//! Wake: a session gets a server when a call waits for one.
//!
//! There is one wake at a time for each session, and all calls that wait share its outcome. It runs
//! on a task of its own, so that a client that goes away does not cancel it for the others.
//!
//! The wake of an opening session lasts until the server has answered `initialize`: a server that
//! is gone before counts as one that did not start, and one that takes longer than
//! [`Config::start_timeout`](crate::Config::start_timeout) is given up.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use super::{
    keeper,
    renew::retry_after_renewal,
    start::{StartError, start},
};
use crate::{
    ports::{Conversation, DetachReason, EndReason, Event, SessionError, SpawnError, SpawnPurpose},
    state::{EndCondition, RegistryState, Session, WakeId, Want},
    sync::sleep_until,
};

/// A call of a session waits for a server.
pub(crate) fn want(state: &Arc<RegistryState>, session: &Arc<Session>) {
    let now = Instant::now();
    let user_delay = state.start_backoffs.remaining(&session.user, now);
    let (wanted, conversation, purpose) = {
        let mut locked = session.lock();
        let wanted = locked.lifecycle.want(now, user_delay);
        let purpose = if locked.lifecycle.is_opening() {
            SpawnPurpose::Opening
        } else {
            SpawnPurpose::Revival
        };
        (wanted, locked.conversation.clone(), purpose)
    };
    // Closed with its session: then nothing waits.
    let Some(conversation) = conversation else { return };
    match wanted {
        Want::Nothing => {}
        Want::Wake(id) => {
            let task = Wake {
                state: Arc::clone(state),
                session: Arc::clone(session),
                conversation,
                purpose,
                id,
            };
            state.tasks.spawn(task.run().instrument(session.span.clone()));
        }
        Want::Refuse(error) => {
            if let SessionError::BackingOff(_) = error {
                state.observer.on(Event::BackedOff);
            }
            conversation.refuse(error);
        }
    }
}

/// A wake under way. Dropping it refuses the calls that wait, also if it panics.
struct Wake {
    state: Arc<RegistryState>,
    session: Arc<Session>,
    conversation: Arc<dyn Conversation>,
    purpose: SpawnPurpose,
    id: WakeId,
}

impl Wake {
    async fn run(self) {
        let begun = Instant::now();
        let outcome = retry_after_renewal(&self.state, &self.session, || self.attempt()).await;
        let revival = self.purpose == SpawnPurpose::Revival;
        let error = match outcome {
            Ok(waited) if revival => {
                tracing::info!(session = %self.session.tag, "session revived");
                self.state
                    .observer
                    .on(Event::Revived(Instant::now().saturating_duration_since(begun)));
                return self.report_waits(waited);
            }
            Ok(_) => return,
            Err(error) => error,
        };
        let credentials = matches!(error, StartError::Spawn(SpawnError::Credentials(_)));
        let unfit = matches!(error, StartError::Spawn(SpawnError::Unfit(_)));
        if credentials && revival {
            self.state.end_user(&self.session.user);
        }
        let error = error.into_session_error(&self.state, &self.session);
        if unfit {
            let reason = if revival {
                EndReason::Unrevivable
            } else {
                EndReason::NotOpened
            };
            self.state.end(&self.session, reason, EndCondition::Always);
        }
        if revival {
            self.state.observer.on(Event::RevivalFailed);
        }
        self.fail(error);
    }

    /// Starts a server. The times since which calls have waited for it.
    async fn attempt(&self) -> Result<Vec<Instant>, StartError> {
        let (state, session) = (&self.state, &self.session);
        let deadline = Instant::now() + state.config.start_timeout;
        session.lock().lifecycle.set_deadline(deadline);
        let started = start(state, session, &self.conversation, self.purpose).await?;
        // Only this wake gives the session a server: the place is not free only if the session has
        // ended.
        let (server, waited) = keeper::attach(state, session, started, None).ok_or(StartError::SessionEnded)?;
        loop {
            // Before the check, so that an opening in between is not missed.
            let opened = server.opened.notified();
            if !session.lock().lifecycle.is_opening() {
                return Ok(waited);
            }
            tokio::select! {
                biased;
                () = session.ended.cancelled() => return Err(StartError::SessionEnded),
                () = opened => {}
                () = server.retired.cancelled() => return Err(StartError::BackendDied),
                () = server.done.cancelled() => state.detach(session, &server, DetachReason::BackendDied),
                () = sleep_until(deadline) => {
                    state.detach(session, &server, DetachReason::Expired);
                    return Err(StartError::TimedOut);
                }
            }
        }
    }

    /// Ends the wake, and then refuses the calls: one that comes in between begins another wake.
    fn fail(&self, error: SessionError) {
        let waited = self.session.lock().lifecycle.fail_wake(self.id, error);
        if let Some(waited) = waited {
            if self.purpose == SpawnPurpose::Revival {
                self.report_waits(waited);
            }
            self.conversation.refuse(error);
        }
    }

    fn report_waits(&self, since: Vec<Instant>) {
        for since in since {
            let waited = Instant::now().saturating_duration_since(since);
            self.state.observer.on(Event::Waited(waited));
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        // Nothing happens if the wake is over.
        self.fail(SessionError::Aborted);
    }
}
