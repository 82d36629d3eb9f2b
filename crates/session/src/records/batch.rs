//! The changes that the store does not have yet, merged by session.

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    error_chain::error_chain,
    ports::{Change, Record, Records, SessionKey},
};

/// The number of changes kept for a store that refuses them. Records to be saved are bounded by the
/// quota and never dropped, since they would not be saved again; this bounds ended sessions.
const MAX_CHANGES: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Batch(BTreeMap<SessionKey, Change>);

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn extend(&mut self, changes: Vec<Change>) {
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
                // An end is final.
                (Some(ended), _) if ended.ended_at().is_some() => ended,
                (_, change) => change,
            };
            self.0.insert(key, merged);
        }
        self.shrink(MAX_CHANGES);
    }

    /// Drops what matters least: times of last activity, which lag anyway, and then the oldest
    /// ends, whose sessions the store may bring back after a restart.
    fn shrink(&mut self, limit: usize) {
        if self.0.len() <= limit {
            return;
        }
        let before = self.0.len();
        self.0.retain(|_, change| !matches!(change, Change::Touch(..)));
        let excess = self.0.len().saturating_sub(limit);
        let ended = self
            .0
            .values()
            .filter_map(|change| Some((change.ended_at()?, change.key())));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        for (_, key) in ended.iter().take(excess) {
            self.0.remove(key);
        }
        let dropped = before - self.0.len();
        tracing::error!(
            dropped,
            "session changes dropped: the store has refused writes for too long"
        );
    }

    /// The number of sessions in the batch that have ended.
    pub(crate) fn ended(&self) -> usize {
        self.0.values().filter(|change| change.ended_at().is_some()).count()
    }

    /// Writes all changes. True if nothing is left.
    pub(crate) async fn write(&mut self, records: &dyn Records) -> bool {
        if self.0.is_empty() {
            return true;
        }
        match records.apply(self.0.values().cloned().collect()).await {
            Ok(()) => {
                self.0.clear();
                true
            }
            Err(error) => {
                tracing::warn!(reason = error_chain(&error), "session records not written; retrying");
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

    fn ended_at(&self) -> Option<SystemTime> {
        match self {
            Self::End(_, at) | Self::ExpireIfUnused { at, .. } => Some(*at),
            Self::Save(..) | Self::Touch(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::{GrantId, Snapshot, UserId};

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
    fn later_changes_of_a_session_replace_earlier_ones() {
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
    fn records_to_be_saved_are_never_dropped() {
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
