//! The rotator: moves sessions to new backends before the credential of the old ones expires.
//!
//! Make before break: the new backend has replayed the handshake before it is attached, exchanges
//! in flight finish on the old one, and only then is that one stopped. A credential is refreshed
//! once for a user, however many sessions are due. Each user, and then each session, has a task of
//! its own, so that a slow one delays no other.
//! [`Expiry::rotate_at`](crate::state::Expiry::rotate_at) says when a session is due.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::Instrument;

use super::{
    backend_task,
    start::{StartBackendError, start},
};
use crate::{
    error_chain::error_chain,
    ports::{CredentialError, DetachReason, Event, SpawnError, SpawnPurpose, UserId},
    state::{AttachedBackend, RegistryState, Session},
};

/// The number of attempts to start a new backend while the handshake goes on in the old one.
const MAX_ATTEMPTS: usize = 3;
/// The shortest time between two attempts to rotate a session.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// A session and the backend that it is to be moved from.
type DueSession = (Arc<Session>, Arc<AttachedBackend>);

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
        if let Some(backend) = session.backend() {
            by_user
                .entry(session.user.clone())
                .or_default()
                .push((session, backend));
        }
    }
    for (user, sessions) in by_user {
        let state = Arc::clone(state);
        let tasks = state.tasks.clone();
        tasks.spawn(async move {
            // Closing ends the sessions, and with them the starts of backends.
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
        let mut expiries = sessions.iter().filter_map(|(_, backend)| backend.expiry);
        if expiries.any(|expiry| expiry.wall >= current.expires_at) {
            // A backend that is due has this very credential.
            credential = caller.credentials.refresh().await;
        }
    }
    match credential {
        Ok(_) => {
            let mut rotations = JoinSet::new();
            for (session, backend) in sessions {
                let (state, span) = (Arc::clone(state), session.span.clone());
                rotations.spawn(async move { rotate_session(&state, &session, &backend).await }.instrument(span));
            }
            rotations.join_all().await;
        }
        Err(CredentialError::Terminal(error)) => {
            tracing::info!(user = %user.0, error, "credential not renewed: the user has to sign in again");
            state.end_user(user);
        }
        Err(CredentialError::Transient(error)) => {
            tracing::warn!(user = %user.0, error, "credential not renewed; retrying");
            for (session, backend) in &sessions {
                retry_or_expire(state, session, backend);
            }
        }
    }
}

/// Moves one session to a new backend.
pub(crate) async fn rotate_session(state: &Arc<RegistryState>, session: &Arc<Session>, old: &Arc<AttachedBackend>) {
    let Some(_guard) = old.begin_rotation() else { return };
    for _ in 0..MAX_ATTEMPTS {
        let Some(snapshot) = old.backend.snapshot() else { break };
        let started = start(state, session, Some(snapshot.clone()), SpawnPurpose::Rotation);
        // A backend that has been detached needs no replacement.
        let Some(started) = old.retired.run_until_cancelled(started).await else {
            return;
        };
        match started {
            Ok(started) if old.backend.snapshot().as_ref() == Some(&snapshot) => {
                if backend_task::attach(state, session, started, Some(old)).is_some() {
                    tracing::info!(session = %session.tag, "session moved to a new backend");
                    state.observer.on(Event::Rotated);
                    state.changes.mark_changed(session);
                }
                return;
            }
            // The client has continued its handshake meanwhile, which the new backend does not
            // know.
            Ok(started) => started.backend.stop().await,
            Err(StartBackendError::Spawn(error @ SpawnError::Credentials(_))) => {
                tracing::info!(
                    reason = error_chain(&error),
                    "credential not renewed: the user has to sign in again"
                );
                state.end_user(&session.user);
                return;
            }
            Err(error) => {
                let reason = error_chain(&error);
                tracing::warn!(session = %session.tag, reason, "session not moved to a new backend");
                break;
            }
        }
    }
    retry_or_expire(state, session, old);
}

/// Keeps the backend while its credential is valid, and schedules another attempt. An expired one
/// is detached: the next request asks for the credential again.
fn retry_or_expire(state: &RegistryState, session: &Session, backend: &Arc<AttachedBackend>) {
    state.observer.on(Event::RotationFailed);
    let now = Instant::now();
    let Some(expiry) = backend.expiry else { return };
    if expiry.at <= now {
        state.detach(session, backend, DetachReason::Expired);
        return;
    }
    // Ever sooner, so that the last attempt is close to the expiry.
    let left = expiry.at.saturating_duration_since(now);
    let delay = (left / 2).min(state.config.max_backoff).max(MIN_RETRY_DELAY);
    let locked = session.lock();
    if locked.lifecycle.is_attached_to(backend) {
        state.rotation_deadlines.set(session.key, Some(now + delay));
    }
}
