//! The connections that are open, and which of them makes room for a new one.
//!
//! A connection is silent while it has no request in flight: before its first request, and between
//! two. At the limit, a new connection takes the place of the one that has been silent longest, so
//! connections that send nothing never keep others out. If all are busy, a few more are accepted
//! as reserve, for health checks only.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// Connections beyond the limit that serve only health checks.
pub(crate) const RESERVED_CONNECTIONS: usize = 16;

/// All open connections.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    limit: usize,
    open: Mutex<OpenConnections>,
    /// Notified when there may be room for another connection.
    changed: Notify,
}

/// The place of one connection in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    number: u64,
    /// True for a connection of the reserve.
    pub(crate) reserved: bool,
    /// Cancelled when another connection takes the place.
    pub(crate) evicted: CancellationToken,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    all: HashMap<u64, OpenConnection>,
    /// The silent ones by the time since which they are silent, the oldest first.
    silent: BTreeMap<(Instant, u64), CancellationToken>,
}

#[derive(Debug)]
struct OpenConnection {
    evicted: CancellationToken,
    silent_since: Option<Instant>,
}

impl ConnectionTable {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Returns once another connection can be accepted. Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().has_room(self.limit) {
                return;
            }
            changed.await;
        }
    }

    /// Adds a connection that is silent, in the place of another one if the limit is reached.
    pub(crate) fn insert(self: &Arc<Self>, now: Instant) -> ConnectionSlot {
        let mut open = self.lock();
        if open.all.len() >= self.limit {
            open.evict_oldest();
        }
        let reserved = open.all.len() >= self.limit;
        let number = open.next;
        open.next += 1;
        let evicted = CancellationToken::new();
        let connection = OpenConnection {
            evicted: evicted.clone(),
            silent_since: None,
        };
        open.all.insert(number, connection);
        open.set_silent(number, now);
        ConnectionSlot {
            table: Arc::clone(self),
            number,
            reserved,
            evicted,
        }
    }

    /// Evicts the connection that has been silent longest, if there is one.
    pub(crate) fn evict_oldest(&self) {
        self.lock().evict_oldest();
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        // No operation panics between two changes that belong together.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn has_room(&self, limit: usize) -> bool {
        self.all.len() < limit.saturating_add(RESERVED_CONNECTIONS) || !self.silent.is_empty()
    }

    fn evict_oldest(&mut self) {
        if let Some(((_, number), evicted)) = self.silent.pop_first() {
            self.all.remove(&number);
            evicted.cancel();
        }
    }

    fn set_silent(&mut self, number: u64, now: Instant) {
        if let Some(connection) = self.all.get_mut(&number) {
            connection.silent_since = Some(now);
            self.silent.insert((now, number), connection.evicted.clone());
        }
    }

    fn set_busy(&mut self, number: u64) {
        let since = self.all.get_mut(&number).and_then(|it| it.silent_since.take());
        if let Some(since) = since {
            self.silent.remove(&(since, number));
        }
    }
}

impl ConnectionSlot {
    /// A request has begun on the connection, which had none.
    pub(crate) fn set_busy(&self) {
        self.table.lock().set_busy(self.number);
    }

    /// The last request of the connection has ended.
    pub(crate) fn set_silent(&self, now: Instant) {
        self.table.lock().set_silent(self.number, now);
        self.table.changed.notify_one();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.table.lock();
        open.set_busy(self.number);
        open.all.remove(&self.number);
        drop(open);
        self.table.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_is_silent_longest_makes_room() {
        let start = Instant::now();
        let table = ConnectionTable::new(2);
        let (first, second) = (table.insert(start), table.insert(at(start, 1)));
        first.set_busy();
        first.set_silent(at(start, 2));
        let third = table.insert(at(start, 3));
        assert!(second.evicted.is_cancelled() && !third.reserved);
        // An evicted connection no longer counts, whatever happens to it.
        second.set_silent(at(start, 4));
        drop(second);
        let _fourth = table.insert(at(start, 5));
        assert!(first.evicted.is_cancelled() && !third.evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_leave_only_the_reserve() {
        let start = Instant::now();
        let table = ConnectionTable::new(1);
        let busy = |_| {
            let slot = table.insert(start);
            slot.set_busy();
            slot
        };
        let mut slots: Vec<_> = (0..=RESERVED_CONNECTIONS).map(busy).collect();
        let reserved: Vec<bool> = slots.iter().map(|slot| slot.reserved).collect();
        assert!(!reserved[0] && reserved[1..].iter().all(|reserved| *reserved));
        let no_room = tokio::time::timeout(Duration::from_secs(1), table.room()).await;
        assert!(no_room.is_err());
        assert!(slots.iter().all(|slot| !slot.evicted.is_cancelled()));
        let (last, ()) = tokio::join!(async { table.room().await }, async { drop(slots.remove(0)) });
        assert_eq!(last, ());
    }
}
