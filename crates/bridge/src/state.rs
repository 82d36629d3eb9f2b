//! The state that the tasks of a bridge share: the state machine behind its lock, and the signals
//! that follow from each step of it.
//!
//! A step is short and synchronous. Its signals (readers with something to read, lines to write, an
//! earlier deadline) go out after the lock is released.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    legacy::StateMachine,
    streams::{EventId, Reader, ResponseMode, StreamEvent, Unflushed},
};

#[derive(Debug)]
pub(crate) struct BridgeState {
    /// Locked for one step at a time and never across an await. The invariants of [`StateMachine`]
    /// hold between steps.
    machine: Mutex<StateMachine>,
    /// Lines wait for the server. For a single waiter, who may find none.
    pub(crate) output: Notify,
    /// The next deadline is earlier than before. For a single waiter.
    pub(crate) earlier_deadline: Notify,
}

/// The reading end of one stream. Dropping it detaches the reader.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    state: Arc<BridgeState>,
    reader: Reader,
}

impl BridgeState {
    pub(crate) fn new(machine: StateMachine) -> Arc<Self> {
        Arc::new(Self {
            machine: Mutex::new(machine),
            output: Notify::new(),
            earlier_deadline: Notify::new(),
        })
    }

    /// Takes one step of the state machine and sends the signals that follow.
    pub(crate) fn step<T>(&self, step: impl FnOnce(&mut StateMachine) -> T) -> T {
        let (outcome, wakers, output, earlier) = {
            // A step that panicked has failed its own exchange; the others continue.
            let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
            let before = machine.next_deadline();
            let outcome = step(&mut machine);
            let earlier = machine
                .next_deadline()
                .is_some_and(|at| before.is_none_or(|before| at < before));
            let wakers = machine.streams.take_wakers();
            (outcome, wakers, !machine.outbox.is_empty(), earlier)
        };
        for waker in wakers {
            waker.wake();
        }
        if output {
            self.output.notify_one();
        }
        if earlier {
            self.earlier_deadline.notify_one();
        }
        outcome
    }
}

impl StreamHandle {
    pub(crate) fn new(state: &Arc<BridgeState>, reader: Reader) -> Self {
        Self {
            state: Arc::clone(state),
            reader,
        }
    }

    /// Waits until it is clear how to answer the exchange. Cancel safe.
    pub(crate) async fn response_mode(&self) -> ResponseMode {
        poll_fn(|context| {
            self.state
                .step(|machine| machine.streams.poll_response_mode(self.reader, context))
        })
        .await
    }

    /// Primes the stream with the event id that is returned. `None` if another reader has replaced
    /// this one.
    pub(crate) fn prime(&self) -> Option<EventId> {
        self.state.step(|machine| machine.streams.prime(self.reader))
    }

    /// The count of bytes on their way to clients.
    pub(crate) fn unflushed(&self) -> Unflushed {
        self.state.step(|machine| machine.streams.unflushed().clone())
    }

    /// The next event; `None` once the stream has ended.
    pub(crate) fn poll_event(&self, context: &Context<'_>) -> Poll<Option<StreamEvent>> {
        self.state.step(|machine| machine.poll_event(self.reader, context))
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.state.step(|machine| machine.detach(Instant::now(), self.reader));
    }
}
