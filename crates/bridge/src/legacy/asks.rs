//! The requests of the server that are open toward the client: sampling, elicitation, roots, ping.
//!
//! One server and one client share a bridge, so their ids are left as they are. A request is open from when the server makes it
//! until the client answers, its deadline passes or the server takes it back; an answer to anything else is
//! not passed on, so that no request of the server is answered twice.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::id::{Id, Key};

/// An open request of the server.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What the server calls it.
    pub(crate) id: Id,
    /// When the server gets an error instead of an answer.
    pub(crate) deadline: Instant,
}

/// The open requests of the server.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: HashMap<Key, Ask>,
}

impl Asks {
    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether one of this id is open.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.open.contains_key(key)
    }

    /// Adds one whose id must not be open.
    pub(crate) fn insert(&mut self, ask: Ask) {
        self.open.insert(ask.id.key().clone(), ask);
    }

    /// Sets another deadline and gives back the old one.
    pub(crate) fn postpone(&mut self, key: &Key, deadline: Instant) -> Option<Instant> {
        self.open
            .get_mut(key)
            .map(|ask| std::mem::replace(&mut ask.deadline, deadline))
    }

    /// Takes one out: it is no longer open.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Ask> {
        self.open.remove(key)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.open = HashMap::new();
    }
}
