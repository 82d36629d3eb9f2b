//! The rotator: moves sessions to fresh backends before the credential of the old ones runs out.
//!
//! Make before break: the fresh backend has replayed the handshake before it takes the seat, what is in flight finishes on
//! the old one, and only then is that one stopped. A refresh is asked for once for a user, however many sessions are
//! due; each user, and then each session, has a task of its own, so that a slow one delays nobody. When a credential is
//! due is decided from the time that it has left; users are spread over a tenth of the lead, so that they do not all come at once.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::Instrument;

use crate::{
    ending::Shut,
    keeper::{self, Place, StartError},
    ports::{CredentialError, DetachReason, EndReason, Event, SpawnError, SpawnPurpose, UserId},
    registry::Shared,
    seat::{Seat, Session},
    wake::describe,
};

/// How often a fresh backend is made again because the handshake went on in the old one meanwhile.
const ATTEMPTS: usize = 3;

/// A session and the backend that it is to be moved from.
type Seated = (Arc<Session>, Arc<Seat>);

/// Lets another rotation of the session begin, also when this one's task panics.
struct Turn<'a>(&'a Session);

/// Rotates until the registry closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    // A zero interval would be refused by the timer.
    let every = shared.config.rotate_interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            _scheduled = ticks.tick() => {}
            () = shared.rotate_now.notified() => {}
        }
        sweep(&shared, Instant::now());
    }
}

fn sweep(shared: &Arc<Shared>, now: Instant) {
    let due = shared.rotations().due(now);
    let mut by_user: HashMap<UserId, Vec<Seated>> = HashMap::new();
    for session in due.iter().filter_map(|key| shared.table.get(key)) {
        if let Some(seat) = session.seat() {
            by_user.entry(session.user.clone()).or_default().push((session, seat));
        }
    }
    for (user, sessions) in by_user {
        let shared = Arc::clone(shared);
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            // Closing ends the sessions, and with them whatever is being started.
            let closing = shared.closing.clone();
            closing.run_until_cancelled(rotate(&shared, &user, sessions)).await;
        });
    }
}

/// Moves the sessions of one user.
async fn rotate(shared: &Arc<Shared>, user: &UserId, sessions: Vec<Seated>) {
    let held: Vec<_> = sessions
        .iter()
        .filter_map(|(_, seat)| seat.expires)
        .map(|e| e.wall)
        .collect();
    let Some(credentials) = sessions.iter().find_map(|(session, _)| session.credentials()) else {
        return;
    };
    let mut credential = credentials.current().await;
    if let Ok(current) = &credential
        && held.iter().any(|held| *held >= current.expires_at)
    {
        // Someone's backend has this very credential, and it is due.
        credential = credentials.refresh().await;
    }
    match credential {
        Ok(_) => {
            let mut moves = JoinSet::new();
            for (session, seat) in sessions {
                let (shared, span) = (Arc::clone(shared), session.span.clone());
                moves.spawn(async move { replace(&shared, &session, &seat).await }.instrument(span));
            }
            moves.join_all().await;
        }
        Err(CredentialError::Terminal(error)) => {
            tracing::info!(user = %user.0, error, "the user has to sign in again");
            shared.end_user(user);
        }
        Err(CredentialError::Transient(error)) => {
            tracing::warn!(user = %user.0, error, "the credential cannot be renewed now");
            for (session, seat) in &sessions {
                put_off(shared, session, seat);
            }
        }
    }
}

/// Moves one session to a fresh backend.
pub(crate) async fn replace(shared: &Arc<Shared>, session: &Arc<Session>, seat: &Arc<Seat>) {
    if session.rotating.swap(true, Ordering::AcqRel) {
        return;
    }
    let turn = Turn(session);
    for _ in 0..ATTEMPTS {
        let Some(snapshot) = seat.backend.snapshot() else { break };
        let started = keeper::start(shared, session, Some(snapshot.clone()), SpawnPurpose::Rotation);
        // One that has been put to sleep, or was lost, needs no replacement.
        let Some(started) = seat.retired.run_until_cancelled(started).await else {
            return;
        };
        match started {
            Ok(started) if seat.backend.snapshot().as_ref() == Some(&snapshot) => {
                if keeper::sit_down(shared, session, started, Place::Of(seat)).is_some() {
                    tracing::info!(session = %session.tag, "session moved to a fresh backend");
                    shared.observer.on(Event::Rotated);
                    shared.mark_dirty(session);
                }
                return;
            }
            // The client has gone on with its handshake meanwhile: the fresh one knows too little.
            Ok(started) => started.backend.stop().await,
            Err(StartError::Spawn(error @ SpawnError::Credentials(_))) => {
                tracing::info!(reason = describe(&error), "the user has to sign in again");
                shared.end_user(&session.user);
                return;
            }
            Err(error) => {
                tracing::warn!(session = %session.tag, reason = describe(&error), "the session was not moved to a fresh backend");
                break;
            }
        }
    }
    drop(turn);
    put_off(shared, session, seat);
}

/// The seat keeps its backend while the credential lives. Once that is over the session sleeps, and the next request asks for
/// the credential again; it ends if nothing of it is retained, and so it does if a request comes first.
fn put_off(shared: &Shared, session: &Arc<Session>, seat: &Arc<Seat>) {
    shared.observer.on(Event::RotationFailed);
    let now = Instant::now();
    let Some(expiry) = seat.expires else { return };
    let left = expiry.at.saturating_duration_since(now);
    if !left.is_zero() {
        // Ever sooner, so that there is a last try close to the end.
        let wait = (left / 2).min(shared.config.max_backoff).max(Duration::from_millis(10));
        if session.is_seated(seat) {
            shared.rotations().set(session.key, now + wait);
        }
        return;
    }
    expire(shared, session, seat);
}

/// The credential of a backend has run out, and the backend with it. Nothing happens if another one has the seat.
pub(crate) fn expire(shared: &Shared, session: &Arc<Session>, seat: &Arc<Seat>) {
    let snapshot = seat.backend.snapshot();
    if shared.config.retain.is_zero() || snapshot.is_none() {
        if session.is_seated(seat) {
            shared.end(session, EndReason::Expired, Shut::Whatever);
        }
        return;
    }
    {
        let mut inner = session.inner();
        if !session.is_seated(seat) {
            return;
        }
        inner.snapshot = snapshot;
        session.put_seat(&mut inner, None);
    }
    shared.observer.on(Event::Detached(DetachReason::Expired));
    let told = || tracing::warn!(session = %session.tag, "the credential has run out, the session sleeps");
    session.span.in_scope(told);
    shared.mark_dirty(session);
    shared.plan_sleep(session);
}

impl Shared {
    /// Puts a session on the agenda for when the credential of its backend has to be replaced.
    pub(crate) fn plan_rotation(&self, session: &Session, seat: &Seat) {
        let Some(expiry) = seat.expires else { return };
        let now = Instant::now();
        let left = expiry.at.saturating_duration_since(now);
        let lead = self.config.refresh_lead.min(left / 2);
        let early = lead + (lead / 10).mul_f64(share(&session.user));
        self.rotations().set(session.key, now + left.saturating_sub(early));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.rotating.store(false, Ordering::Release);
    }
}

/// A number from 0 to 1 that is always the same for a user: so the sessions of one user stay together.
fn share(user: &UserId) -> f64 {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() & 0x3ff).unwrap_or_default()) / 1023.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_spread_and_each_stays_in_place() {
        let users: Vec<UserId> = (0..100).map(|i| UserId(i.to_string().into())).collect();
        let shares: Vec<f64> = users.iter().map(share).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.iter().any(|share| *share < 0.2) && shares.iter().any(|share| *share > 0.8));
        assert_eq!(shares, users.iter().map(share).collect::<Vec<_>>());
    }
}
