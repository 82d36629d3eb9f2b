//! The order of sign-ins.
//!
//! Each code exchange kills the refresh tokens that the user had before, so that of two sign-ins of one user the pair of
//! the later exchange must be kept. Whose a sign-in is shows only after the exchange, and one that hangs or is refused
//! (anybody can come back with a code that is made up) must not keep others waiting. So exchanges run side by side, a
//! bounded number of them, and each remembers its span: from before the exchange until after it. Where the spans of two
//! exchanges of one user do not meet, their order is known; where they do, the one who comes second finds out by
//! renewing its pair: the upstream renews only the living one, and a renewal has a span of its own.
//!
//! Left out: the order of sign-ins in several processes on one store.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, RwLockWriteGuard, Semaphore};

/// The sign-ins of a process.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Read from before an exchange until its pair is in the store, written while a refusal is judged.
    gate: Arc<RwLock<()>>,
    slots: Arc<Semaphore>,
    ledger: Arc<Mutex<Ledger>>,
    /// Held from a placement until what it says is in the store. No call of the upstream is waited for meanwhile.
    pub(crate) placing: tokio::sync::Mutex<()>,
}

/// One sign-in, from before its exchange until its pair is in the store.
#[derive(Debug)]
pub(crate) struct Turn {
    ledger: Arc<Mutex<Ledger>>,
    /// Its number among those under way.
    begun: u64,
    /// The span of what has yielded its pair.
    start: u64,
    end: u64,
    _gate: OwnedRwLockReadGuard<()>,
    _slot: OwnedSemaphorePermit,
}

/// Leave to begin a sign-in.
#[derive(Debug)]
pub(crate) struct Slot(OwnedSemaphorePermit);

/// Where an exchange stands among those of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// After all whose pairs have been stored.
    Newest,
    /// Before one whose pair has been stored.
    Older,
    /// It and one whose pair has been stored were under way at once.
    Unclear,
}

/// Numbers count moments, not time. `stored` holds a user only as long as a turn is under way that began before the
/// stored exchange ended: for a later one there is nothing to compare.
#[derive(Debug, Default)]
struct Ledger {
    moment: u64,
    under_way: BTreeSet<u64>,
    /// By user: the span of the exchange whose pair is in the store.
    stored: HashMap<i64, (u64, u64)>,
}

/// How many sign-ins may be talking to the upstream.
const SLOTS: usize = 64;

impl Default for Turns {
    fn default() -> Self {
        Self {
            gate: Arc::default(),
            slots: Arc::new(Semaphore::new(SLOTS)),
            ledger: Arc::default(),
            placing: tokio::sync::Mutex::default(),
        }
    }
}

impl Turns {
    /// Leave to begin, unless too many are under way.
    pub(crate) fn slot(&self) -> Option<Slot> {
        Arc::clone(&self.slots).try_acquire_owned().ok().map(Slot)
    }

    /// Begins a sign-in: its exchange comes next. It waits while a refusal is judged.
    pub(crate) async fn begin(&self, slot: Slot) -> Turn {
        let gate = Arc::clone(&self.gate).read_owned().await;
        let ledger = Arc::clone(&self.ledger);
        let start = {
            let mut ledger = lock(&ledger);
            let start = ledger.next();
            ledger.under_way.insert(start);
            start
        };
        Turn {
            ledger,
            begun: start,
            start,
            end: u64::MAX,
            _gate: gate,
            _slot: slot.0,
        }
    }

    /// Waits until no sign-in is under way, and keeps new ones waiting.
    pub(crate) async fn none(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }
}

impl Turn {
    /// The exchange has ended.
    pub(crate) fn exchanged(&mut self) {
        self.end = self.moment();
    }

    /// The moment that it is now.
    pub(crate) fn moment(&self) -> u64 {
        lock(&self.ledger).next()
    }

    /// The pair has been renewed, from a moment until now.
    pub(crate) fn renewed(&mut self, from: u64) {
        self.start = from;
        self.end = self.moment();
    }

    /// Where this exchange stands.
    pub(crate) fn place(&self, user: i64) -> Place {
        match lock(&self.ledger).stored.get(&user) {
            Some((start, _)) if self.end < *start => Place::Older,
            Some((_, end)) if self.start < *end => Place::Unclear,
            Some(_) | None => Place::Newest,
        }
    }

    /// The pair of this exchange is in the store.
    pub(crate) fn stored(&self, user: i64) {
        lock(&self.ledger).stored.insert(user, (self.start, self.end));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut ledger = lock(&self.ledger);
        ledger.under_way.remove(&self.begun);
        let oldest = ledger.under_way.first().copied().unwrap_or(u64::MAX);
        ledger.stored.retain(|_, (_, end)| *end > oldest);
    }
}

impl Ledger {
    fn next(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begin(turns: &Turns) -> Turn {
        turns.begin(turns.slot().unwrap()).await
    }

    #[tokio::test]
    async fn exchanges_one_after_the_other_are_in_order() {
        let turns = Turns::default();
        let mut first = begin(&turns).await;
        first.exchanged();
        let mut second = begin(&turns).await;
        second.exchanged();
        assert_eq!(second.place(1), Place::Newest);
        second.stored(1);
        assert_eq!(first.place(1), Place::Older);
        assert_eq!(first.place(2), Place::Newest);
    }

    #[tokio::test]
    async fn exchanges_at_once_are_unclear_until_one_renews() {
        let turns = Turns::default();
        let (mut one, mut two) = (begin(&turns).await, begin(&turns).await);
        one.exchanged();
        two.exchanged();
        assert_eq!(two.place(1), Place::Newest);
        two.stored(1);
        assert_eq!(one.place(1), Place::Unclear);
        let from = one.moment();
        one.renewed(from);
        assert_eq!(one.place(1), Place::Newest);
    }

    #[tokio::test]
    async fn the_ledger_is_empty_when_nobody_is_under_way() {
        let turns = Turns::default();
        let (mut one, two) = (begin(&turns).await, begin(&turns).await);
        one.exchanged();
        one.stored(1);
        drop(one);
        assert_eq!(lock(&turns.ledger).stored.len(), 1);
        drop(two);
        assert!(lock(&turns.ledger).stored.is_empty() && lock(&turns.ledger).under_way.is_empty());
    }

    #[tokio::test]
    async fn slots_are_few_and_come_back() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..SLOTS {
            held.push(begin(&turns).await);
        }
        assert!(turns.slot().is_none());
        held.pop();
        assert!(turns.slot().is_some());
    }
}
