//! What the tasks of a bridge share: the state machine behind its lock, and the signals that follow from a step of it.
//!
//! Every step is short and synchronous. What it makes due (readers with something to read, lines to write, an earlier deadline)
//! is signalled after the lock is free.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    event_id::EventId,
    legacy::Legacy,
    streams::{Event, Form, Lent, Reader, StreamId},
};

/// The machine and its signals.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held for one step at a time and never across an await. Between steps the invariants of [`Legacy`] hold.
    machine: Mutex<Legacy>,
    /// There are lines for the server.
    output: Notify,
    /// The next deadline has moved forward.
    earlier: Notify,
}

/// The reading end of one stream. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Outlet {
    shared: Arc<Shared>,
    reader: Reader,
}

impl Shared {
    /// Wraps a machine.
    pub(crate) fn new(machine: Legacy) -> Arc<Self> {
        Arc::new(Self {
            machine: Mutex::new(machine),
            output: Notify::new(),
            earlier: Notify::new(),
        })
    }

    /// Takes one step of the machine and sends the signals that follow.
    pub(crate) fn step<T>(&self, step: impl FnOnce(&mut Legacy) -> T) -> T {
        let (outcome, wakers, output, earlier) = {
            // A step that panicked has failed its own exchange; the others go on.
            let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
            let before = machine.next_due();
            let outcome = step(&mut machine);
            let earlier = machine
                .next_due()
                .is_some_and(|at| before.is_none_or(|before| at < before));
            (outcome, machine.streams.take_due(), !machine.outbox.is_empty(), earlier)
        };
        for waker in wakers {
            waker.wake();
        }
        if output {
            self.output.notify_one();
        }
        if earlier {
            self.earlier.notify_one();
        }
        outcome
    }

    /// Waits until there may be lines for the server. Cancel safe. One waiter at a time.
    pub(crate) async fn output(&self) {
        self.output.notified().await;
    }

    /// Waits until the next deadline has moved forward. Cancel safe. One waiter at a time.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}

impl Outlet {
    /// The reading end for `reader`. There must be no other.
    pub(crate) fn new(shared: &Arc<Shared>, reader: Reader) -> Self {
        Self {
            shared: Arc::clone(shared),
            reader,
        }
    }

    /// What is read here.
    pub(crate) fn stream(&self) -> StreamId {
        self.reader.stream
    }

    /// What the exchange turns out to be. Cancel safe.
    pub(crate) async fn form(&self) -> Form {
        poll_fn(|context| {
            self.shared
                .step(|machine| machine.streams.poll_form(self.reader, context))
        })
        .await
    }

    /// From now on the client has an event id, namely this one. `None` if another reader has taken the stream over.
    pub(crate) fn prime(&self) -> Option<EventId> {
        self.shared.step(|machine| machine.streams.prime(self.reader))
    }

    /// The account of what is on its way to clients.
    pub(crate) fn lent(&self) -> Lent {
        self.shared.step(|machine| machine.streams.lent().clone())
    }

    /// The next event; `None` once the stream has ended.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Event>> {
        self.shared.step(|machine| machine.poll(self.reader, context))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.shared.step(|machine| machine.hang_up(Instant::now(), self.reader));
    }
}
