//! The durable records, written behind.
//!
//! No exchange waits for the store: a session that has changed is put on a list, once, and one task writes what is on the list
//! [`Config::write_behind`](crate::Config::write_behind) after the first entry. So a crash of the process loses at most what happened in the
//! time of that and one write; an orderly stop loses nothing. A batch that the store refused is kept, a later change of
//! the same session taking the place of an earlier one, and tried again.
//!
//! What has ended stays known over a restart, for [`Config::tombstone_age`](crate::Config::tombstone_age), and of that the newest
//! [`Config::tombstones`](crate::Config::tombstones); the store may hold a thousand or so more until the next sweep.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    ports::{Change, Record, Records, RecordsError, SessionKey, Snapshot},
    registry::Shared,
    seat::{Session, Written},
    sync::{Mutex, MutexGuard, sleep, timeout_at},
    wake::describe,
};

/// How far the recorded time of the last activity may lag behind while nothing else changes.
const LAG: Duration = Duration::from_secs(60);
/// How many changes are kept for a store that refuses them. Records to be saved are bounded by the cap on sessions and never given up,
/// since nobody would save them again; this bounds what has ended.
const MOST: usize = 65_536;
/// After how many endings, or else how long, those that are too old or too many are forgotten.
const ENDINGS: usize = 1024;
const SWEEP: Duration = Duration::from_secs(3600);
/// How often the last batch is tried.
const LAST_ATTEMPTS: usize = 3;

/// What is to be written, and where to.
#[derive(Debug)]
pub(crate) struct Journal {
    records: Option<Arc<dyn Records>>,
    pending: Mutex<Pending>,
    /// Told when something is pending.
    filled: Notify,
}

/// The sessions that have changed and those that have ended since the last batch.
#[derive(Debug, Default)]
struct Pending {
    dirty: Vec<SessionKey>,
    /// [`Change::End`] and [`Change::ExpireIfUnused`].
    ended: Vec<Change>,
    /// What had to be gathered before the sessions ended with the registry.
    last: Vec<Change>,
}

/// Changes that the store does not have yet, by session.
#[derive(Debug, Default)]
struct Batch(BTreeMap<SessionKey, Change>);

impl Journal {
    pub(crate) fn new(records: Option<Arc<dyn Records>>) -> Self {
        Self {
            records,
            pending: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// A session has ended. What the records are told of that is an ending or a lapse.
    pub(crate) fn end(&self, ending: Change) {
        if self.records.is_some() {
            self.pending().ended.push(ending);
            self.filled.notify_one();
        }
    }

    /// Whether sessions that were loaded may be served by others ([`Records::is_shared`]).
    pub(crate) fn is_shared(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.is_shared())
    }

    /// The snapshot in the record of a session.
    pub(crate) async fn snapshot(&self, key: SessionKey) -> Result<Option<Snapshot>, RecordsError> {
        match &self.records {
            Some(records) => records.snapshot(key).await,
            None => Ok(None),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Lists are whole whatever happens.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until the registry closes, and then what is left.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(records) = shared.journal.records.clone() else {
        return;
    };
    let mut batch = Batch::default();
    let every = shared.config.write_behind.max(Duration::from_millis(1));
    let (mut ended, mut next_sweep) = (0, Instant::now() + SWEEP);
    while !shared.closing.is_cancelled() {
        let due = async {
            if batch.0.is_empty() {
                let _either = timeout_at(next_sweep, shared.journal.filled.notified()).await;
            }
            sleep(every).await;
        };
        if shared.closing.run_until_cancelled(due).await.is_some() {
            batch.extend(shared.gather(false));
            let endings = batch.endings();
            if batch.write(records.as_ref()).await {
                ended += endings;
            }
            if ended >= ENDINGS || Instant::now() >= next_sweep {
                // If it fails, the next one does it.
                (ended, next_sweep) = (0, Instant::now() + SWEEP);
                if let Err(error) = forget(&shared, records.as_ref()).await {
                    tracing::warn!(reason = describe(&error), "ended sessions cannot be forgotten now");
                }
            }
        }
    }
    // Told after `closing` was cancelled: the sessions are gathered and have ended by then.
    shared.gathered.cancelled().await;
    let last = std::mem::take(&mut shared.journal.pending().last);
    batch.extend(last);
    // What has ended since.
    batch.extend(shared.gather(false));
    for attempt in 1..=LAST_ATTEMPTS {
        if batch.write(records.as_ref()).await {
            return;
        }
        sleep(every * u32::try_from(attempt).unwrap_or(1)).await;
    }
    tracing::error!(changes = batch.0.len(), "the last changes of the sessions are lost");
}

/// Forgets endings that are too old or too many.
pub(crate) async fn forget(shared: &Shared, records: &dyn Records) -> Result<(), RecordsError> {
    let now = shared.clock.now();
    let before = now.checked_sub(shared.config.tombstone_age);
    records
        .forget_ended(before.unwrap_or(SystemTime::UNIX_EPOCH), shared.config.tombstones)
        .await
}

impl Shared {
    /// Something of a session has changed that its record may have to show.
    pub(crate) fn mark_dirty(&self, session: &Session) {
        // Only the first one since the last batch goes further: the hot path shares nothing.
        if self.journal.records.is_some()
            && !session.dirty.load(Ordering::Relaxed)
            && !session.dirty.swap(true, Ordering::AcqRel)
        {
            self.journal.pending().dirty.push(session.key);
            self.journal.filled.notify_one();
        }
    }

    /// Gathers what is left to be written, before all sessions end with the registry.
    pub(crate) fn gather_last(&self) {
        if self.journal.records.is_some() {
            let last = self.gather(true);
            self.journal.pending().last = last;
        }
    }

    /// What has changed since the last time.
    fn gather(&self, closing: bool) -> Vec<Change> {
        let (dirty, ended) = {
            let mut pending = self.journal.pending();
            (std::mem::take(&mut pending.dirty), std::mem::take(&mut pending.ended))
        };
        let mut changes: Vec<Change> = Vec::with_capacity(dirty.len() + ended.len());
        let sessions = if closing {
            self.table.select(|_| true)
        } else {
            dirty.iter().filter_map(|key| self.table.get(key)).collect()
        };
        for session in sessions {
            session.dirty.store(false, Ordering::Release);
            changes.extend(self.change(&session, closing));
        }
        changes.extend(ended);
        changes
    }

    /// What the record of a session has to be told.
    fn change(&self, session: &Session, closing: bool) -> Option<Change> {
        // Outside of the lock: neither the backend's code nor the clock is ours.
        let seated = session.seat().and_then(|seat| seat.backend.snapshot());
        let now = self.clock.now();
        let mut inner = session.inner();
        let last_activity = inner.life.last_activity()?;
        let snapshot = seated.or_else(|| inner.snapshot.clone());
        let key = session.key;
        let at = wall(now, last_activity);
        match &mut inner.written {
            // One that was loaded and not used since has its snapshot in the record only.
            Some(written) if snapshot.is_none() || written.snapshot == snapshot => {
                let lag = last_activity.saturating_duration_since(written.last_activity);
                let asleep = session.seat().is_none();
                if lag >= LAG || ((asleep || closing) && !lag.is_zero()) {
                    written.last_activity = last_activity;
                    return Some(Change::Touch(key, at));
                }
                None
            }
            written => {
                let snapshot = snapshot?;
                *written = Some(Written {
                    snapshot: Some(snapshot.clone()),
                    last_activity,
                });
                let record = Record {
                    key,
                    grant: session.grant.clone(),
                    user: session.user.clone(),
                    opened: wall(now, session.opened),
                    last_activity: at,
                };
                Some(Change::Save(record, snapshot))
            }
        }
    }
}

/// A moment of the past on the wall clock, on which it is `now`.
pub(crate) fn wall(now: SystemTime, moment: Instant) -> SystemTime {
    let ago = Instant::now().saturating_duration_since(moment);
    now.checked_sub(ago).unwrap_or(now)
}

impl Batch {
    fn extend(&mut self, changes: Vec<Change>) {
        for change in changes {
            let key = change.key();
            let merged = match (self.0.remove(&key), change) {
                (Some(Change::Save(record, snapshot)), Change::Touch(_, last_activity)) => Change::Save(
                    Record {
                        last_activity,
                        ..record
                    },
                    snapshot,
                ),
                // What has ended stays so.
                (Some(ended @ (Change::End(..) | Change::ExpireIfUnused { .. })), _) => ended,
                (_, change) => change,
            };
            self.0.insert(key, merged);
        }
        self.shrink(MOST);
    }

    /// Gives up what is least: times of last activity, which lag anyway, and then the oldest endings, of which the store may
    /// bring the session back after a restart.
    fn shrink(&mut self, most: usize) {
        if self.0.len() <= most {
            return;
        }
        let before = self.0.len();
        self.0.retain(|_, change| !matches!(change, Change::Touch(..)));
        let excess = self.0.len().saturating_sub(most);
        let endings = self.0.values().filter_map(|change| match change {
            Change::End(key, at) | Change::ExpireIfUnused { key, at, .. } => Some((*at, *key)),
            Change::Save(..) | Change::Touch(..) => None,
        });
        let mut endings: Vec<_> = endings.collect();
        endings.sort_unstable();
        for (_, key) in endings.iter().take(excess) {
            self.0.remove(key);
        }
        let given_up = before - self.0.len();
        tracing::error!(
            given_up,
            "the store refuses changes of sessions for too long: some are forgotten"
        );
    }

    fn endings(&self) -> usize {
        let is_ending = |change: &&Change| matches!(change, Change::End(..) | Change::ExpireIfUnused { .. });
        self.0.values().filter(is_ending).count()
    }

    /// True if nothing is left.
    async fn write(&mut self, records: &dyn Records) -> bool {
        if self.0.is_empty() {
            return true;
        }
        match records.apply(self.0.values().cloned().collect()).await {
            Ok(()) => {
                self.0.clear();
                true
            }
            Err(error) => {
                tracing::warn!(reason = describe(&error), "changes of sessions cannot be written now");
                false
            }
        }
    }
}

impl Change {
    fn key(&self) -> SessionKey {
        match self {
            Self::Save(record, _) => record.key,
            Self::Touch(key, _) | Self::End(key, _) | Self::ExpireIfUnused { key, .. } => *key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{GrantId, UserId};

    fn record(seconds: u64) -> Record {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Record {
            key: SessionKey([1; 32]),
            grant: GrantId("g".into()),
            user: UserId("u".into()),
            opened: SystemTime::UNIX_EPOCH,
            last_activity: time,
        }
    }

    #[test]
    fn later_changes_of_a_session_take_the_place_of_earlier_ones() {
        let snapshot = Snapshot("s".into());
        let key = SessionKey([1; 32]);
        let mut batch = Batch::default();
        batch.extend(vec![Change::Save(record(1), snapshot.clone())]);
        batch.extend(vec![Change::Touch(key, record(2).last_activity)]);
        assert_eq!(batch.0[&key], Change::Save(record(2), snapshot.clone()));
        let ended = Change::End(key, record(3).last_activity);
        batch.extend(vec![ended.clone()]);
        batch.extend(vec![Change::Save(record(4), snapshot)]);
        assert_eq!(batch.0[&key], ended);
    }

    #[test]
    fn of_too_many_changes_records_to_be_saved_are_kept() {
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let save = Change::Save(record(9), Snapshot("s".into()));
        let touch = Change::Touch(SessionKey([2; 32]), time(9));
        let end = |number: u8, seconds| Change::End(SessionKey([number; 32]), time(seconds));
        let all = vec![end(3, 2), end(4, 1), touch.clone(), save.clone(), end(5, 3)];
        let left = |most| {
            let mut batch = Batch::default();
            batch.extend(all.clone());
            batch.shrink(most);
            batch.0.into_values().collect::<Vec<_>>()
        };
        assert_eq!(left(5), [save.clone(), touch, end(3, 2), end(4, 1), end(5, 3)]);
        assert_eq!(left(4), [save.clone(), end(3, 2), end(4, 1), end(5, 3)]);
        assert_eq!(left(2), [save.clone(), end(5, 3)]);
        assert_eq!(left(0), [save]);
    }
}
