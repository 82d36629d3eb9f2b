//! The rotator: moves sessions to new servers before the credential of the old ones expires.
//!
//! Make before break: the new server has replayed what the client has set before it is attached,
//! calls in flight finish on the old one, and only then is that one stopped. Until then the next
//! rotation of the session waits. A credential is refreshed once for a user, however many sessions
//! are due. Each user, and then each session, has a task of its own, so that a slow one delays no
//! other.
//! [`Expiry::rotate_at`](crate::state::Expiry::rotate_at) says when a session is due.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::Instrument;

use super::{
    keeper,
    start::{StartError, start},
};
use crate::{
    error_chain::error_chain,
    ports::{Conversation, CredentialError, Event, SpawnError, SpawnPurpose, UserId},
    state::{AttachedServer, RegistryState, Session},
};

/// The shortest time between two attempts to rotate a session.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// A session and the server that it is to be moved from.
type DueSession = (Arc<Session>, Arc<AttachedServer>);

/// Rotates until the registry closes.
pub(crate) async fn run(state: Arc<RegistryState>) {
    // The timer refuses an interval of zero.
    let interval = state.config.rotate_interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = state.closing.cancelled() => return,
            _scheduled = ticks.tick() => {}
            () = state.rotate_now.notified() => {}
        }
        sweep(&state, Instant::now());
    }
}

fn sweep(state: &Arc<RegistryState>, now: Instant) {
    let mut by_user: HashMap<UserId, Vec<DueSession>> = HashMap::new();
    let due = state.rotation_deadlines.take_due(now);
    for session in due.iter().filter_map(|key| state.table.get(key)) {
        if let Some(server) = session.server() {
            by_user.entry(session.user.clone()).or_default().push((session, server));
        }
    }
    for (user, sessions) in by_user {
        let state = Arc::clone(state);
        let tasks = state.tasks.clone();
        tasks.spawn(async move {
            // Closing ends the sessions, and with them the starts of servers.
            let closing = state.closing.clone();
            closing.run_until_cancelled(rotate_user(&state, &user, sessions)).await;
        });
    }
}

async fn rotate_user(state: &Arc<RegistryState>, user: &UserId, sessions: Vec<DueSession>) {
    let Some(caller) = sessions.iter().find_map(|(session, _)| session.caller()) else {
        return;
    };
    let mut credential = caller.credentials.current().await;
    if let Ok(current) = &credential {
        let mut expiries = sessions.iter().filter_map(|(_, server)| server.expiry);
        if expiries.any(|expiry| expiry.wall >= current.expires_at) {
            // A server that is due has this very credential.
            credential = caller.credentials.refresh().await;
        }
    }
    match credential {
        Ok(_) => {
            let mut rotations = JoinSet::new();
            for (session, server) in sessions {
                let (state, span) = (Arc::clone(state), session.span.clone());
                rotations.spawn(async move { rotate_session(&state, &session, &server).await }.instrument(span));
            }
            rotations.join_all().await;
        }
        Err(CredentialError::Terminal(error)) => {
            tracing::info!(user = %user.0, error, "credential not renewed: the user has to sign in again");
            state.end_user(user);
        }
        Err(CredentialError::Transient(error)) => {
            tracing::warn!(user = %user.0, error, "credential not renewed; retrying");
            for (session, server) in &sessions {
                retry(state, session, server);
            }
        }
    }
}

/// Moves one session to a new server.
pub(crate) async fn rotate_session(state: &Arc<RegistryState>, session: &Arc<Session>, old: &Arc<AttachedServer>) {
    let Some(_guard) = old.begin_rotation() else { return };
    let Some(conversation) = may_rotate(session, old) else {
        return;
    };
    // Before that there is nothing to move.
    if session.lock().lifecycle.is_opening() || conversation.snapshot().is_none() {
        return retry(state, session, old);
    }
    let started = start(state, session, &conversation, SpawnPurpose::Rotation);
    // A server that has been detached needs no replacement.
    let Some(started) = old.retired.run_until_cancelled(started).await else {
        return;
    };
    match started {
        Ok(started) => {
            if keeper::attach(state, session, started, Some(old)).is_some() {
                tracing::info!(session = %session.tag, "session moved to a new backend");
                state.observer.on(Event::Rotated);
                state.changes.mark_changed(session);
            }
        }
        Err(StartError::Spawn(error @ SpawnError::Credentials(_))) => {
            let reason = error_chain(&error);
            tracing::info!(reason, "credential not renewed: the user has to sign in again");
            state.end_user(&session.user);
        }
        Err(error) => {
            let reason = error_chain(&error);
            tracing::warn!(session = %session.tag, reason, "session not moved to a new backend");
            // The old one serves until its end. The request after that meets the misfit.
            if !matches!(error, StartError::Spawn(SpawnError::Unfit(_))) {
                retry(state, session, old);
            }
        }
    }
}

/// The conversation of a session that may be moved from `old` now. If another server is still
/// finishing what it has, the rotation is due again at its end.
fn may_rotate(session: &Session, old: &Arc<AttachedServer>) -> Option<Arc<dyn Conversation>> {
    let mut locked = session.lock();
    if !locked.lifecycle.is_attached_to(old) {
        return None;
    }
    if locked.retired.is_some() {
        locked.rotation_waits = true;
        return None;
    }
    locked.conversation.clone()
}

/// Keeps the server while its credential is valid, and schedules another attempt.
fn retry(state: &RegistryState, session: &Session, server: &Arc<AttachedServer>) {
    state.observer.on(Event::RotationFailed);
    let now = Instant::now();
    let Some(expiry) = server.expiry else { return };
    // Ever sooner, so that the last attempt is close to the expiry.
    let left = expiry.at.saturating_duration_since(now);
    let delay = (left / 2).min(state.config.max_backoff).max(MIN_RETRY_DELAY);
    let locked = session.lock();
    if locked.lifecycle.is_attached_to(server) {
        state.rotation_deadlines.set(session.key, Some(now + delay));
    }
}
