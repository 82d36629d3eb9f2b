//! The sessions by the hash of their id, and the ended ones that are still remembered.
//!
//! A session is in the table from before its backend is spawned until it ends, so that ending a grant or stopping the
//! registry reaches those that are only opening. Lookups share nothing but one lock of many, taken for reading. Lookups by
//! grant and user scan: they are rare, and the caps bound the scan.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use crate::{
    ports::SessionKey,
    seat::Session,
    sync::{AtomicBool, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    tombstones::Tombstones,
};

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    // Lock order: no lock of a session is taken while one of these is held, nor the other way round.
    shards: Vec<RwLock<Shard>>,
    tombstones: Mutex<Tombstones>,
    closed: AtomicBool,
}

/// What an id stands for.
#[derive(Debug)]
pub(crate) enum Found {
    /// A session that is opening or live.
    Session(Arc<Session>),
    /// A session that has ended.
    Ended,
    /// Nothing that the table knows.
    Unknown,
}

/// The table takes no new session.
#[derive(Debug)]
pub(crate) struct Closed;

#[derive(Debug, Default)]
struct Shard {
    // Under the lock, so that nothing comes in behind whoever closed the table and then looked at all shards.
    closed: bool,
    sessions: HashMap<SessionKey, Arc<Session>>,
}

/// Enough that threads rarely meet; few enough in permutations that they do.
const SHARDS: usize = if cfg!(test) { 2 } else { 64 };

impl Table {
    pub(crate) fn new(tombstones: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            tombstones: Mutex::new(Tombstones::new(tombstones)),
            closed: AtomicBool::new(false),
        }
    }

    /// Puts a session in.
    pub(crate) fn insert(&self, session: Arc<Session>) -> Result<(), Closed> {
        let mut shard = self.change(&session.key);
        if shard.closed {
            return Err(Closed);
        }
        shard.sessions.insert(session.key, session);
        Ok(())
    }

    pub(crate) fn find(&self, key: &SessionKey) -> Found {
        match self.get(key) {
            Some(session) => Found::Session(session),
            None if self.tombstones().contains(key) => Found::Ended,
            None => Found::Unknown,
        }
    }

    pub(crate) fn get(&self, key: &SessionKey) -> Option<Arc<Session>> {
        self.read(key).sessions.get(key).cloned()
    }

    /// Remembers a session that ended before the table was there.
    pub(crate) fn bury(&self, key: SessionKey) {
        self.tombstones().add(key);
    }

    /// Takes a session out that has ended. A tombstone says that a client held its id.
    pub(crate) fn remove(&self, key: &SessionKey, tombstone: bool) {
        // The tombstone first: in no moment is the id unknown.
        if tombstone {
            self.tombstones().add(*key);
        }
        self.change(key).sessions.remove(key);
    }

    /// The sessions that `wanted` picks. It must not lock a session.
    pub(crate) fn select(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            found.extend(shard.sessions.values().filter(|session| wanted(session)).cloned());
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

    // No code of others runs while one of these locks is held, except the pure filters of `select`.

    fn read(&self, key: &SessionKey) -> RwLockReadGuard<'_, Shard> {
        self.shards[key.bucket(SHARDS)]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, key: &SessionKey) -> RwLockWriteGuard<'_, Shard> {
        self.shards[key.bucket(SHARDS)]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tombstones(&self) -> MutexGuard<'_, Tombstones> {
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
