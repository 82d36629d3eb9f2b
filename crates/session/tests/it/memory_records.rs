//! Durable records in memory, which refuse writes on command.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use session::ports::{
    BoxFuture, Change, GrantId, LastInitialize, Record, Records, RecordsError, RevokedSubject, SessionKey, Snapshot,
};

use crate::harness::lock;

#[derive(Debug, Default)]
pub(crate) struct MemoryRecords {
    pub(crate) rows: Mutex<BTreeMap<SessionKey, (Record, Snapshot)>>,
    pub(crate) initializes: Mutex<BTreeMap<String, (Record, Snapshot)>>,
    /// The number of reads of those.
    pub(crate) initialize_reads: AtomicUsize,
    pub(crate) endings: Mutex<Vec<(SystemTime, SessionKey)>>,
    /// Makes writes fail.
    pub(crate) refuses: Mutex<bool>,
    /// The answer to [`Records::is_shared`].
    pub(crate) shared: Mutex<bool>,
    /// The number of writes.
    pub(crate) batches: AtomicUsize,
}

impl MemoryRecords {
    /// The only record.
    pub(crate) fn only(&self) -> (Record, Snapshot) {
        let rows = lock(&self.rows);
        assert_eq!(rows.len(), 1);
        rows.values().next().expect("a row").clone()
    }
}

impl Records for MemoryRecords {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Record>, RecordsError>> {
        Box::pin(async { Ok(lock(&self.rows).values().map(|(record, _)| record.clone()).collect()) })
    }

    fn snapshot(&self, key: SessionKey) -> BoxFuture<'_, Result<Option<Snapshot>, RecordsError>> {
        Box::pin(async move { Ok(lock(&self.rows).get(&key).map(|(_, snapshot)| snapshot.clone())) })
    }

    fn ended(&self, most: usize) -> BoxFuture<'_, Result<Vec<SessionKey>, RecordsError>> {
        Box::pin(async move {
            let endings = lock(&self.endings);
            let newest = endings.iter().skip(endings.len().saturating_sub(most));
            Ok(newest.map(|(_, key)| *key).collect())
        })
    }

    fn forget_ended(&self, before: SystemTime, most: usize) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            let mut endings = lock(&self.endings);
            endings.retain(|(at, _)| *at >= before);
            let excess = endings.len().saturating_sub(most);
            endings.drain(..excess);
            Ok(())
        })
    }

    fn last_initialize<'a>(
        &'a self,
        grant: &'a GrantId,
    ) -> BoxFuture<'a, Result<Option<LastInitialize>, RecordsError>> {
        Box::pin(async move {
            self.initialize_reads.fetch_add(1, Ordering::SeqCst);
            if *lock(&self.refuses) {
                return Err(RecordsError::Unavailable("refused".into()));
            }
            let initializes = lock(&self.initializes);
            let last = initializes.get(&*grant.0);
            Ok(last.map(|(record, snapshot)| LastInitialize {
                key: record.key,
                snapshot: snapshot.clone(),
            }))
        })
    }

    fn forget_initializes(&self, before: SystemTime) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            lock(&self.initializes).retain(|_, (record, _)| record.opened >= before);
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        *lock(&self.shared)
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            if *lock(&self.refuses) {
                return Err(RecordsError::Unavailable("refused".into()));
            }
            self.batches.fetch_add(1, Ordering::SeqCst);
            let mut rows = lock(&self.rows);
            for change in changes {
                match change {
                    Change::Open(record, snapshot) => {
                        if !lock(&self.endings).iter().any(|(_, ended)| *ended == record.key) {
                            let last = (record.clone(), snapshot.clone());
                            lock(&self.initializes).insert(record.grant.0.to_string(), last);
                            rows.insert(record.key, (record, snapshot));
                        }
                    }
                    Change::Revoke(subject, at) => {
                        lock(&self.initializes).retain(|_, (record, _)| {
                            let of_subject = match &subject {
                                RevokedSubject::Grant(grant) => record.grant == *grant,
                                RevokedSubject::User(user) => record.user == *user,
                            };
                            !of_subject || record.opened > at
                        });
                    }
                    Change::Save(record, snapshot) => {
                        if !lock(&self.endings).iter().any(|(_, ended)| *ended == record.key) {
                            rows.insert(record.key, (record, snapshot));
                        }
                    }
                    Change::Touch(key, last_activity) => {
                        if let Some((record, _)) = rows.get_mut(&key) {
                            record.last_activity = last_activity;
                        }
                    }
                    Change::Forget { key, last_activity } => {
                        let used_since = |known| rows.get(&key).is_some_and(|(record, _)| record.last_activity > known);
                        if !last_activity.is_some_and(used_since) {
                            rows.remove(&key);
                        }
                    }
                    Change::ExpireIfUnused { key, last_activity, .. }
                        if rows
                            .get(&key)
                            .is_some_and(|(record, _)| record.last_activity > last_activity) => {}
                    Change::End(key, at) | Change::ExpireIfUnused { key, at, .. } => {
                        rows.remove(&key);
                        let mut endings = lock(&self.endings);
                        if !endings.iter().any(|(_, ended)| *ended == key) {
                            endings.push((at, key));
                        }
                    }
                }
            }
            Ok(())
        })
    }
}
