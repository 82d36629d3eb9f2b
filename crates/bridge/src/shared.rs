//! The state that the tasks of a conversation share: the state machine behind its lock, and the
//! signals that follow from each step of it.
//!
//! A step is short and synchronous. Its signals (readers with something to read, lines to write, an
//! earlier deadline, requests to the owner) go out after the lock is released.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

#[cfg(feature = "http")]
use tokio::sync::watch;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    machine::StateMachine,
    owner::Owner,
    streams::{EventId, Reader, ResponseMode, StreamEvent, Unflushed},
};

#[derive(Debug)]
pub(crate) struct Shared {
    /// Locked for one step at a time and never across an await. The invariants of [`StateMachine`]
    /// hold between steps.
    machine: Mutex<StateMachine>,
    owner: Arc<dyn Owner>,
    /// Wakes the timer task: the next deadline is earlier than before, or the owner has requests
    /// from a step that must not call it. For a single waiter.
    timer: Arc<Notify>,
    /// Held by the request that reads the list of tools, while others wait for it.
    pub(crate) reading_tools: tokio::sync::Mutex<()>,
    /// Something that was in flight has ended, or a link has made progress.
    pub(crate) progress: Notify,
    /// Messages of the servers that belong to no request are for the client. Links that have to
    /// ask for them watch it.
    #[cfg(feature = "http")]
    pub(crate) expects_messages: watch::Sender<bool>,
}

/// The reading end of one stream. Dropping it detaches the reader.
#[derive(Debug)]
pub(crate) struct StreamHandle {
    shared: Arc<Shared>,
    reader: Reader,
}

impl Shared {
    pub(crate) fn new(machine: StateMachine, owner: Arc<dyn Owner>) -> Arc<Self> {
        Arc::new(Self {
            machine: Mutex::new(machine),
            owner,
            timer: Arc::default(),
            reading_tools: tokio::sync::Mutex::default(),
            progress: Notify::new(),
            #[cfg(feature = "http")]
            expects_messages: watch::Sender::new(false),
        })
    }

    /// Takes one step of the state machine and sends the signals that follow.
    pub(crate) fn step<T>(&self, step: impl FnOnce(&mut StateMachine) -> T) -> T {
        let (outcome, requests) = self.take_step(step, |machine| Some(machine.take_requests()));
        if let Some(requests) = requests {
            if let Some(after) = requests.want {
                self.owner.want(after);
            }
            if requests.changed {
                self.owner.changed();
            }
            if requests.touch {
                self.owner.touch();
            }
        }
        outcome
    }

    /// Takes one step for the owner, who must not be called meanwhile: the timer task calls it
    /// afterwards.
    pub(crate) fn step_for_owner<T>(&self, step: impl FnOnce(&mut StateMachine) -> T) -> T {
        let (outcome, later) = self.take_step(step, |machine| machine.has_requests().then_some(()));
        if later.is_some() {
            self.timer.notify_one();
        }
        outcome
    }

    fn take_step<T, R>(
        &self,
        step: impl FnOnce(&mut StateMachine) -> T,
        requests: impl FnOnce(&mut StateMachine) -> Option<R>,
    ) -> (T, Option<R>) {
        let (outcome, requests, wakers, outputs, earlier, progress) = {
            let mut machine = self.lock();
            let outcome = step(&mut machine);
            let earlier = machine.timers.take_earlier();
            let wakers = machine.streams.take_wakers();
            let outputs = machine.links.take_output_signals();
            let progress = machine.take_progress();
            // Under the lock, so that the last step has the last word.
            #[cfg(feature = "http")]
            if let Some(expects) = machine.take_expectation() {
                self.expects_messages.send_replace(expects);
            }
            machine.account_memory();
            (outcome, requests(&mut machine), wakers, outputs, earlier, progress)
        };
        for waker in wakers {
            waker.wake();
        }
        for output in outputs {
            output.notify_one();
        }
        if earlier {
            self.timer.notify_one();
        }
        if progress {
            self.progress.notify_waiters();
        }
        (outcome, requests)
    }

    fn lock(&self) -> MutexGuard<'_, StateMachine> {
        // A step that panicked has failed its own exchange; the others continue.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the timers of a conversation, until it is dropped or `ended` is cancelled.
pub(crate) async fn run_timers(shared: Weak<Shared>, ended: CancellationToken) {
    let Some(signal) = shared.upgrade().map(|shared| Arc::clone(&shared.timer)) else {
        return;
    };
    loop {
        let Some(next) = shared.upgrade().map(|shared| {
            shared.step(|machine| {
                machine.run_timers(Instant::now());
                machine.timers.arm()
            })
        }) else {
            return;
        };
        let waited = async {
            match next {
                Some(at) => _ = timeout_at(at, signal.notified()).await,
                None => signal.notified().await,
            }
        };
        if ended.run_until_cancelled(waited).await.is_none() {
            return;
        }
    }
}

impl StreamHandle {
    pub(crate) fn new(shared: &Arc<Shared>, reader: Reader) -> Self {
        Self {
            shared: Arc::clone(shared),
            reader,
        }
    }

    /// Waits until it is clear how to answer the exchange. Cancel safe.
    pub(crate) async fn response_mode(&self) -> ResponseMode {
        poll_fn(|context| {
            self.shared
                .step(|machine| machine.streams.poll_response_mode(self.reader, context))
        })
        .await
    }

    /// True if the exchange waits for a server.
    pub(crate) fn is_waiting(&self) -> bool {
        self.shared.step(|machine| machine.is_waiting(self.reader.stream))
    }

    /// Begins the event stream. Returns the current position, and whether its client understands a
    /// priming event; `None` if another reader has replaced this one.
    pub(crate) fn begin_events(&self) -> Option<(EventId, bool)> {
        self.shared.step(|machine| machine.begin_events(self.reader))
    }

    /// The count of bytes on their way to clients.
    pub(crate) fn unflushed(&self) -> Unflushed {
        self.shared.step(|machine| machine.streams.unflushed().clone())
    }

    /// The next event; `None` once the stream has ended.
    pub(crate) fn poll_event(&self, context: &Context<'_>) -> Poll<Option<StreamEvent>> {
        self.shared.step(|machine| machine.poll_event(self.reader, context))
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.shared
            .step(|machine| machine.detach_reader(Instant::now(), self.reader));
    }
}
