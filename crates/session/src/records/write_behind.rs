//! Write-behind: one task writes the changes of sessions to the durable records.
//!
//! Only the answer to `initialize` waits for the store, which by then has the record and the
//! snapshot ([`save_opened`]). A session that has changed later is queued once, and the task writes
//! the queue [`Config::write_behind`](crate::Config::write_behind) after its first entry. A crash
//! of the process loses at most the changes of that time and one write; an orderly stop loses
//! nothing. A batch that the store refused is kept, merged with later changes, and tried again.
//!
//! When the store has the last revision of a dormant session whose conversation is blank, the
//! conversation is put down: it is made again from the record.
//!
//! Ended sessions are remembered over a restart for
//! [`Config::tombstone_age`](crate::Config::tombstone_age), and of those the newest
//! [`Config::tombstones`](crate::Config::tombstones). The store may hold a thousand or so more
//! until the next sweep.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::batch::Batch;
use crate::{
    error_chain::error_chain,
    ports::{Change, Record, Records, RecordsError},
    state::{Pending, RegistryState, Session, WrittenRecord, wall_time},
    sync::{sleep, timeout_at},
};

/// The lag of the recorded last activity while nothing else changes.
const ACTIVITY_LAG: Duration = Duration::from_secs(60);
/// Old ended sessions are forgotten after so many ends, or after [`SWEEP_INTERVAL`].
const SWEEP_AFTER_ENDS: usize = 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// The age at which the last `initialize` of a grant is forgotten: the grant may have expired.
const MAX_INITIALIZE_AGE: Duration = Duration::from_secs(90 * 24 * 3600);
/// The number of attempts to write the last batch.
const LAST_ATTEMPTS: u32 = 3;

/// Writes until the registry closes, and then writes what is left.
pub(crate) async fn run(state: Arc<RegistryState>) {
    let Some(records) = state.records.clone() else {
        return;
    };
    let (mut batch, mut written) = (Batch::default(), BTreeSet::new());
    let interval = state.config.write_behind.max(Duration::from_millis(1));
    let (mut ended, mut next_sweep) = (0, Instant::now() + SWEEP_INTERVAL);
    while !state.closing.is_cancelled() {
        let due = async {
            if batch.is_empty() {
                let _either = timeout_at(next_sweep, state.changes.filled.notified()).await;
            }
            sleep(interval).await;
        };
        if state.closing.run_until_cancelled(due).await.is_some() {
            let (sessions, changes) = gather(&state, false);
            written.extend(sessions.iter().map(|session| session.key));
            batch.extend(changes);
            let in_batch = batch.ended();
            if batch.write(records.as_ref()).await {
                ended += in_batch;
                for session in std::mem::take(&mut written)
                    .iter()
                    .filter_map(|key| state.table.get(key))
                {
                    put_down(&session);
                }
            }
            if ended >= SWEEP_AFTER_ENDS || Instant::now() >= next_sweep {
                // If it fails, the next sweep makes up for it.
                (ended, next_sweep) = (0, Instant::now() + SWEEP_INTERVAL);
                if let Err(error) = forget_ended(&state, records.as_ref()).await {
                    tracing::warn!(
                        reason = error_chain(&error),
                        "ended sessions not removed from the records"
                    );
                }
            }
        }
    }
    // Cancelled after `closing`: by then the changes are gathered and the sessions have ended.
    state.last_changes_queued.cancelled().await;
    batch.extend(gather(&state, false).1);
    for attempt in 1..=LAST_ATTEMPTS {
        if batch.write(records.as_ref()).await {
            return;
        }
        sleep(interval * attempt).await;
    }
    tracing::error!(
        changes = batch.len(),
        "last changes of sessions are lost: the store refuses them"
    );
}

/// Removes ended sessions from the records that are too old or too many, and handshakes that are
/// too old.
pub(crate) async fn forget_ended(state: &RegistryState, records: &dyn Records) -> Result<(), RecordsError> {
    let now = state.clock.now();
    let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    records
        .forget_ended(before(state.config.tombstone_age), state.config.tombstones)
        .await?;
    records.forget_initializes(before(MAX_INITIALIZE_AGE)).await
}

/// Gathers the changes of all sessions before they end with the registry.
pub(crate) fn gather_last(state: &RegistryState) {
    if state.records.is_some() {
        state.changes.push_first(gather(state, true).1);
    }
}

/// Writes the record of a session that has just been opened, and that it is the last one that its
/// grant has initialized, unless its conversation has no snapshot yet.
///
/// # Errors
///
/// [`RecordsError`]. The record may have been written even so.
pub(crate) async fn save_opened(state: &RegistryState, session: &Session) -> Result<(), RecordsError> {
    let Some(records) = &state.records else {
        return Ok(());
    };
    let Some(Change::Save(record, snapshot)) = change_of(state, session, false) else {
        return Ok(());
    };
    records.apply(vec![Change::Open(record, snapshot)]).await
}

/// The sessions that have changed since the last batch, or all on closing, and the changes.
fn gather(state: &RegistryState, closing: bool) -> (Vec<Arc<Session>>, Vec<Change>) {
    let Pending { changed, complete } = state.changes.take();
    let sessions: Vec<_> = if closing {
        state.table.select(|_| true)
    } else {
        changed.iter().filter_map(|key| state.table.get(key)).collect()
    };
    let changes = sessions.iter().filter_map(|session| {
        // Before the session is read, so that a later change queues it again.
        session.queued_for_write.store(false, Ordering::Release);
        change_of(state, session, closing)
    });
    // The ends first: an implicit session that has ended may be among the changed ones again.
    let changes = complete.into_iter().chain(changes).collect();
    (sessions, changes)
}

/// The change that brings the record of a session up to date.
fn change_of(state: &RegistryState, session: &Session, closing: bool) -> Option<Change> {
    // Outside of the lock: these are calls of ports. The revision first: a change in between has
    // another one and is written again.
    let conversation = session.lock().conversation.clone();
    let revision = conversation.as_ref().map(|conversation| conversation.revision());
    let now = state.clock.now();
    let mut locked = session.lock();
    if !locked.lifecycle.is_open() {
        return None;
    }
    let last_activity = session.activity.last();
    let dormant = locked.lifecycle.server().is_none();
    match &mut locked.written {
        Some(written) if revision.is_none() || written.revision == revision => {
            let lag = last_activity.saturating_duration_since(written.last_activity);
            if lag >= ACTIVITY_LAG || ((dormant || closing) && !lag.is_zero()) {
                (written.last_activity, written.as_loaded) = (last_activity, false);
                return Some(Change::Touch(session.key, wall_time(now, last_activity)));
            }
            None
        }
        written => {
            let snapshot = conversation?.snapshot()?;
            *written = Some(WrittenRecord {
                revision,
                as_loaded: false,
                last_activity,
            });
            let record = Record {
                key: session.key,
                grant: session.grant.clone(),
                user: session.user.clone(),
                opened: wall_time(now, session.opened_at),
                last_activity: wall_time(now, last_activity),
                implicit: session.implicit,
            };
            Some(Change::Save(record, snapshot))
        }
    }
}

/// Drops the conversation of a dormant session, if nothing would be lost and nobody has it.
pub(crate) fn put_down(session: &Session) {
    let mut locked = session.lock();
    let lifecycle = &locked.lifecycle;
    let dormant = lifecycle.is_open() && lifecycle.server().is_none() && !lifecycle.is_waking();
    let Some(conversation) = locked
        .conversation
        .as_ref()
        .filter(|_| dormant && locked.retired.is_none())
    else {
        return;
    };
    let revision = locked.written.as_ref().and_then(|written| written.revision);
    let alone = Arc::strong_count(conversation) == 1;
    if alone && conversation.is_blank() && revision == Some(conversation.revision()) {
        let conversation = locked.conversation.take();
        drop(locked);
        drop(conversation);
    }
}
