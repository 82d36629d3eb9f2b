//! The sessions by the hash of their id, and the ended ones that are still remembered.
//!
//! A session is in the table from before its backend is spawned until it ends, so that ending a grant or stopping the
//! registry reaches those that are only opening. Ending a session and taking it out is one call here: nothing else
//! removes an entry. Lookups by grant and user scan: they are rare, and the caps bound the scan.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{id::Key, life::Was, seat::Session};

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    // Lock order: the life of a session is never locked while this is held, nor the other way round.
    rows: Mutex<Rows>,
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

/// Why a session ends, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The client ended it.
    Deleted,
    /// Its backend was gone by itself.
    BackendDied,
    /// Nothing happened on it for too long.
    Idle,
    /// Its grant or its user was ended.
    Revoked,
    /// It did not come to life.
    NotOpened,
    /// The registry stops.
    Stopping,
}

/// The table takes no new session.
#[derive(Debug)]
pub(crate) struct Closed;

#[derive(Debug)]
struct Rows {
    closed: bool,
    sessions: HashMap<Key, Arc<Session>>,
    tombstones: Tombstones,
}

/// The newest ended keys. `order` and `keys` hold the same keys, at most `cap` of them.
#[derive(Debug)]
struct Tombstones {
    cap: usize,
    order: VecDeque<Key>,
    keys: HashSet<Key>,
}

impl Table {
    pub(crate) fn new(tombstones: usize) -> Self {
        Self {
            rows: Mutex::new(Rows {
                closed: false,
                sessions: HashMap::new(),
                tombstones: Tombstones {
                    cap: tombstones,
                    order: VecDeque::new(),
                    keys: HashSet::new(),
                },
            }),
        }
    }

    /// Puts a session in.
    pub(crate) fn insert(&self, session: Arc<Session>) -> Result<(), Closed> {
        let mut rows = self.rows();
        if rows.closed {
            return Err(Closed);
        }
        rows.sessions.insert(session.key, session);
        Ok(())
    }

    pub(crate) fn find(&self, key: &Key) -> Found {
        let rows = self.rows();
        match rows.sessions.get(key) {
            Some(session) => Found::Session(Arc::clone(session)),
            None if rows.tombstones.keys.contains(key) => Found::Ended,
            None => Found::Unknown,
        }
    }

    /// Ends a session. False if it has ended before.
    pub(crate) fn end(&self, session: &Session, reason: Reason) -> bool {
        let was = session.life().end();
        self.bury(session, was, reason)
    }

    /// Ends a session if nothing has happened on it for `timeout`.
    pub(crate) fn end_if_idle(&self, session: &Session, now: Instant, timeout: Duration) -> bool {
        let was = session.life().end_if_idle(now, timeout);
        self.bury(session, was, Reason::Idle)
    }

    /// The sessions that `wanted` picks.
    pub(crate) fn select(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        self.rows()
            .sessions
            .values()
            .filter(|session| wanted(session))
            .cloned()
            .collect()
    }

    /// Refuses new sessions from now on.
    pub(crate) fn close(&self) {
        self.rows().closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.rows().closed
    }

    fn bury(&self, session: &Session, was: Option<Was>, reason: Reason) -> bool {
        let Some(was) = was else { return false };
        {
            let mut rows = self.rows();
            rows.sessions.remove(&session.key);
            // An id that nobody was given cannot come back, and must not push out one that can.
            if was == Was::Live {
                rows.tombstones.add(session.key);
            }
        }
        session.ended.cancel();
        tracing::info!(session = %session.tag, ?reason, "session ended");
        true
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // No code of others runs while the lock is held, except the pure filters of `select`.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tombstones {
    fn add(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > self.cap {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn tombstones(cap: usize) -> Tombstones {
        Tombstones {
            cap,
            order: VecDeque::new(),
            keys: HashSet::new(),
        }
    }

    #[test]
    fn the_oldest_tombstone_goes_first_and_their_number_is_bounded() {
        let keys: Vec<Key> = (0..5).map(|_| SessionId::draw().unwrap().key()).collect();
        let mut tombs = tombstones(3);
        for key in &keys {
            tombs.add(*key);
            tombs.add(*key);
        }
        assert_eq!(tombs.order.len(), 3);
        assert_eq!(tombs.keys, keys[2..].iter().copied().collect());
    }

    #[test]
    fn without_tombstones_nothing_is_remembered() {
        let mut tombs = tombstones(0);
        tombs.add(SessionId::draw().unwrap().key());
        assert!(tombs.keys.is_empty() && tombs.order.is_empty());
    }
}
