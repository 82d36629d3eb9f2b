//! The changes that the store does not have yet, merged by session; and revocations.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use crate::{
    error_chain::error_chain,
    ports::{Change, Record, Records, RevokedSubject, SessionKey},
};

/// The number of changes kept for a store that refuses them. Records to be saved are bounded by the
/// quota and never dropped, since they would not be saved again; this bounds ended sessions.
const MAX_CHANGES: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Batch {
    sessions: BTreeMap<SessionKey, Change>,
    revocations: HashMap<RevokedSubject, SystemTime>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len() + self.revocations.len()
    }

    pub(crate) fn extend(&mut self, changes: Vec<Change>) {
        for change in changes {
            let key = match &change {
                Change::Open(record, _) | Change::Save(record, _) => record.key,
                Change::Touch(key, _)
                | Change::End(key, _)
                | Change::ExpireIfUnused { key, .. }
                | Change::Forget { key, .. } => *key,
                Change::Revoke(subject, at) => {
                    self.revocations.insert(subject.clone(), *at);
                    continue;
                }
            };
            let merged = match (self.sessions.remove(&key), change) {
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
            self.sessions.insert(key, merged);
        }
        self.shrink(MAX_CHANGES);
    }

    /// Drops what matters least: revocations, whose handshakes are forgotten by their age, times
    /// of last activity, which lag anyway, ends of implicit sessions, and then the oldest other
    /// ends, whose sessions the store may bring back after a restart.
    fn shrink(&mut self, limit: usize) {
        let before = self.len();
        if before <= limit {
            return;
        }
        self.revocations.clear();
        self.sessions
            .retain(|_, change| !matches!(change, Change::Touch(..) | Change::Forget { .. }));
        let excess = self.sessions.len().saturating_sub(limit);
        let ended = self
            .sessions
            .iter()
            .filter_map(|(key, change)| Some((change.ended_at()?, *key)));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        for (_, key) in ended.iter().take(excess) {
            self.sessions.remove(key);
        }
        let dropped = before - self.len();
        tracing::error!(
            dropped,
            "session changes dropped: the store has refused writes for too long"
        );
    }

    /// The number of sessions in the batch that have ended.
    pub(crate) fn ended(&self) -> usize {
        self.sessions
            .values()
            .filter(|change| change.ended_at().is_some())
            .count()
    }

    /// Writes all changes. True if nothing is left.
    pub(crate) async fn write(&mut self, records: &dyn Records) -> bool {
        if self.is_empty() {
            return true;
        }
        let revocations = self.revocations.iter();
        let revocations = revocations.map(|(subject, at)| Change::Revoke(subject.clone(), *at));
        let changes = self.sessions.values().cloned().chain(revocations);
        match records.apply(changes.collect()).await {
            Ok(()) => {
                *self = Self::default();
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
    fn ended_at(&self) -> Option<SystemTime> {
        match self {
            Self::End(_, at) | Self::ExpireIfUnused { at, .. } => Some(*at),
            Self::Open(..) | Self::Save(..) | Self::Touch(..) | Self::Forget { .. } | Self::Revoke(..) => None,
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
            implicit: false,
        }
    }

    #[test]
    fn later_changes_of_a_session_replace_earlier_ones() {
        let snapshot = Snapshot("s".into());
        let key = SessionKey([1; 32]);
        let mut batch = Batch::default();
        batch.extend(vec![Change::Save(record(1), snapshot.clone())]);
        batch.extend(vec![Change::Touch(key, record(2).last_activity)]);
        assert_eq!(batch.sessions[&key], Change::Save(record(2), snapshot.clone()));
        let ended = Change::End(key, record(3).last_activity);
        batch.extend(vec![ended.clone()]);
        batch.extend(vec![Change::Save(record(4), snapshot)]);
        assert_eq!(batch.sessions[&key], ended);
    }

    #[test]
    fn implicit_session_is_saved_again_after_its_end() {
        let forget = Change::Forget {
            key: SessionKey([1; 32]),
            last_activity: None,
        };
        let save = Change::Save(record(1), Snapshot("s".into()));
        let mut batch = Batch::default();
        batch.extend(vec![forget.clone(), save.clone()]);
        assert_eq!(batch.sessions[&SessionKey([1; 32])], save);
        batch.extend(vec![forget.clone()]);
        assert_eq!(batch.sessions[&SessionKey([1; 32])], forget);
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
            batch.sessions.into_values().collect::<Vec<_>>()
        };
        assert_eq!(left(5), [save.clone(), touch, end(3, 2), end(4, 1), end(5, 3)]);
        assert_eq!(left(4), [save.clone(), end(3, 2), end(4, 1), end(5, 3)]);
        assert_eq!(left(2), [save.clone(), end(5, 3)]);
        assert_eq!(left(0), [save]);
    }
}
