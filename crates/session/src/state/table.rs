//! The sessions by key, and the ended ones that are still remembered.
//!
//! A session is in the table from before its backend is spawned until it ends, so that ending a
//! grant or stopping the registry reaches sessions that are still opening. A lookup takes one lock
//! of many, for reading. Lookups by grant and user scan the table: they are rare, and the quota
//! bounds the scan.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ptr,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::session::Session;
use crate::{
    ports::SessionKey,
    sync::{AtomicBool, Mutex, RwLock, RwLockWriteGuard, lock},
};

#[derive(Debug)]
pub(crate) struct SessionTable {
    // Lock order: the lock of a session and one of these are never held together.
    shards: Vec<RwLock<Shard>>,
    tombstones: Mutex<Tombstones>,
    closed: AtomicBool,
}

/// The result of a lookup.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// A session that has not ended.
    Session(Arc<Session>),
    Ended,
    Unknown,
}

#[derive(Debug, Default)]
struct Shard {
    // Under the lock, so that no session is inserted behind a task that closed the table and then
    // scanned all shards.
    closed: bool,
    sessions: HashMap<SessionKey, Arc<Session>>,
}

/// The keys of the sessions that ended last, so that an ended one is distinguished from an unknown
/// one. `order` and `keys` hold the same keys, at most `limit` of them: the oldest goes first.
#[derive(Debug)]
struct Tombstones {
    limit: usize,
    order: VecDeque<SessionKey>,
    keys: HashSet<SessionKey>,
}

/// Enough that threads rarely contend; few enough in permutations that they do.
const SHARDS: usize = if cfg!(test) { 2 } else { 64 };

impl SessionTable {
    pub(crate) fn new(tombstones: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            tombstones: Mutex::new(Tombstones::new(tombstones)),
            closed: AtomicBool::new(false),
        }
    }

    /// Inserts a session, also in the place of an ended one with the same key. False if the table
    /// is closed.
    #[must_use]
    pub(crate) fn insert(&self, session: &Arc<Session>) -> bool {
        let mut shard = self.write(&session.key);
        if !shard.closed {
            shard.sessions.insert(session.key, Arc::clone(session));
        }
        !shard.closed
    }

    pub(crate) fn find(&self, key: &SessionKey) -> Lookup {
        match self.get(key) {
            Some(session) => Lookup::Session(session),
            None if lock(&self.tombstones).contains(key) => Lookup::Ended,
            None => Lookup::Unknown,
        }
    }

    pub(crate) fn get(&self, key: &SessionKey) -> Option<Arc<Session>> {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        shard.sessions.get(key).cloned()
    }

    /// Remembers a session that ended before it was in the table.
    pub(crate) fn add_tombstone(&self, key: SessionKey) {
        lock(&self.tombstones).add(key);
    }

    /// Removes a session that has ended. A tombstone says that a client held its id.
    pub(crate) fn remove(&self, session: &Session, tombstone: bool) {
        // The tombstone first: at no moment is the id unknown.
        if tombstone {
            self.add_tombstone(session.key);
        }
        let mut shard = self.write(&session.key);
        // An implicit session may have been made again by now.
        let is_same = |found: &Arc<Session>| ptr::eq(Arc::as_ptr(found), session);
        if shard.sessions.get(&session.key).is_some_and(is_same) {
            shard.sessions.remove(&session.key);
        }
    }

    /// The sessions that `filter` picks. It must not lock a session.
    pub(crate) fn select(&self, filter: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            found.extend(shard.sessions.values().filter(|session| filter(session)).cloned());
        }
        found
    }

    /// Refuses new sessions from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).closed = true;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn shard(&self, key: &SessionKey) -> &RwLock<Shard> {
        &self.shards[key.bucket(SHARDS)]
    }

    fn write(&self, key: &SessionKey) -> RwLockWriteGuard<'_, Shard> {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tombstones {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            order: VecDeque::new(),
            keys: HashSet::new(),
        }
    }

    fn add(&mut self, key: SessionKey) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
    }

    fn contains(&self, key: &SessionKey) -> bool {
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_tombstone_goes_first_and_their_number_is_bounded() {
        let keys = [0, 1, 2, 3, 4].map(|n| SessionKey([n; 32]));
        let mut tombstones = Tombstones::new(3);
        for key in &keys {
            tombstones.add(*key);
            tombstones.add(*key);
        }
        assert_eq!(tombstones.order.len(), 3);
        assert_eq!(tombstones.keys, keys[2..].iter().copied().collect());
    }

    #[test]
    fn limit_of_zero_remembers_nothing() {
        let mut tombstones = Tombstones::new(0);
        tombstones.add(SessionKey([0; 32]));
        assert!(tombstones.keys.is_empty() && tombstones.order.is_empty());
    }
}
