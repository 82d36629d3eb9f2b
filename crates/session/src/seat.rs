//! One session as the registry keeps it, and the seat that its backend takes.
//!
//! The backend sits in a cell that readers load once per exchange, so that it can be replaced under them: whoever has
//! entered the old one finishes on it. A [`Seat`] gives each backend an identity of its own, by which the one that
//! watches a backend tells whether it is still the session's.

use std::sync::{Arc, OnceLock, PoisonError, atomic::Ordering};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    caps::Hold,
    life::Life,
    ports::{Backend, Caller, Credentials, EndReason, GrantId, SessionKey, Snapshot, UserId},
    registry::Shared,
    streak::Streak,
    sync::{ArcSwapOption, AtomicBool, AtomicUsize, Mutex, MutexGuard},
    wake::Flight,
};

/// A session: the record, and the cell for the backend that serves it now.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    /// Names the session in logs.
    pub(crate) tag: Arc<str>,
    pub(crate) grant: GrantId,
    pub(crate) user: UserId,
    /// Known once a request has come since the registry started.
    caller: OnceLock<Arc<Caller>>,
    pub(crate) opened: Instant,
    /// Whatever is logged of the session is logged in it. The client is among its fields once it is known.
    pub(crate) span: Span,
    /// Cancelled when the session ends; its keepers then stop their backends.
    pub(crate) ended: CancellationToken,
    /// Cancelled when the session has ended and nothing is left of its backends.
    pub(crate) gone: CancellationToken,
    /// Told when a backend takes its seat on a session that slept.
    pub(crate) woken: Notify,
    /// Streams that listen while the session sleeps.
    pub(crate) listeners: AtomicUsize,
    /// Whether the session is on the list of those to be written.
    pub(crate) dirty: AtomicBool,
    /// Whether a fresh backend is being made to replace the one in the seat.
    pub(crate) rotating: AtomicBool,
    /// Empty until the backend has started, and while the session sleeps. Changed only under the lock of `inner`.
    seat: ArcSwapOption<Seat>,
    inner: Mutex<Inner>,
}

/// What changes together, under one lock.
#[derive(Debug)]
pub(crate) struct Inner {
    // Changes to `Ended` only in `Shared::end`, which then takes the session out of the table.
    pub(crate) life: Life,
    /// Why the session has ended; `None` until it has.
    pub(crate) ending: Option<EndReason>,
    /// There until the session ends.
    pub(crate) hold: Option<Arc<Hold>>,
    /// What the next backend has to replay; the latest that is known.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) streak: Streak,
    /// The revival under way.
    pub(crate) flight: Option<watch::Receiver<Flight>>,
    /// What the durable record says of the last activity; `None` before the first write.
    pub(crate) written: Option<Written>,
}

/// What the durable record holds.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) last_activity: Instant,
}

/// A backend in its place. Two seats are the same only if they are the same allocation.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) done: CancellationToken,
    /// Cancelled when the backend is no longer the session's.
    pub(crate) retired: CancellationToken,
    /// When its credential runs out.
    pub(crate) expires: Option<Expiry>,
    pub(crate) answered: AtomicBool,
    /// No exchange enters once `open` is false.
    use_: Mutex<Use>,
    emptied: Notify,
}

/// The end of a credential, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    pub(crate) at: Instant,
    pub(crate) wall: std::time::SystemTime,
}

#[derive(Debug)]
struct Use {
    open: bool,
    exchanges: usize,
}

/// Keeps a session from being put to sleep while an exchange is in flight. What the exchange has changed is known when it is
/// over, so its end is what the record is told of.
#[derive(Debug)]
pub(crate) struct Pin {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

/// An exchange on a backend: it is not stopped under the exchange, up to a grace.
#[derive(Debug)]
pub(crate) struct Entered(pub(crate) Arc<Seat>);

impl Inner {
    /// Whether the record is still that which was loaded: nothing of the session has been written here.
    pub(crate) fn is_as_loaded(&self) -> bool {
        self.written.as_ref().is_some_and(|written| written.snapshot.is_none())
    }
}

impl Session {
    pub(crate) fn new(key: SessionKey, grant: GrantId, user: UserId, life: Life, now: Instant) -> Self {
        let tag = key.tag();
        // A root, of the highest level: a warning has the fields too where the filter lets nothing else through, and no
        // session's lines those of another one that happened to cause them.
        let span = tracing::error_span!(
            parent: None,
            "session",
            session = %tag,
            user = %user.0,
            grant = %grant.0,
            client = tracing::field::Empty,
        );
        Self {
            key,
            tag,
            grant,
            user,
            caller: OnceLock::new(),
            opened: now,
            span,
            ended: CancellationToken::new(),
            gone: CancellationToken::new(),
            woken: Notify::new(),
            listeners: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
            rotating: AtomicBool::new(false),
            seat: ArcSwapOption::empty(),
            inner: Mutex::new(Inner {
                life,
                ending: None,
                hold: None,
                snapshot: None,
                streak: Streak::default(),
                flight: None,
                written: None,
            }),
        }
    }

    /// What changes together, under its lock. While it is held nothing but the use of a seat and
    /// the list of the journal is locked.
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code of others runs while the lock is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend that serves the session now.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        self.seat.load_full()
    }

    /// Whether `seat` is the one that serves the session now.
    pub(crate) fn is_seated(&self, seat: &Arc<Seat>) -> bool {
        self.seat
            .load()
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, seat))
    }

    /// Changes the seat and retires the one before. The lock is passed as proof that it is held.
    pub(crate) fn put_seat(&self, _locked: &mut Inner, seat: Option<Arc<Seat>>) {
        // In this order: who finds the old one closed finds the new one in the cell.
        if let Some(before) = self.seat.swap(seat) {
            before.retire();
        }
    }

    /// Learns from a request who speaks on the session. What was learnt before stays.
    pub(crate) fn bind_caller(&self, caller: &Arc<Caller>) {
        self.caller.get_or_init(|| {
            self.span.record("client", &*caller.client.0);
            Arc::clone(caller)
        });
    }

    /// Whether the session was ended with its grant or its user: who asks for it has to sign in again.
    pub(crate) fn is_revoked(&self) -> bool {
        self.inner().ending == Some(EndReason::Revoked)
    }

    /// Who the session belongs to, if a request has said so since the registry started.
    pub(crate) fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.get()
    }

    /// The upstream credential of the session's user.
    pub(crate) fn credentials(&self) -> Option<&Arc<dyn Credentials>> {
        Some(&self.caller()?.credentials)
    }

    /// Pins the session; `None` if it takes no exchanges.
    pub(crate) fn pin(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Pin> {
        self.inner().life.pin(Instant::now()).then(|| Pin {
            shared: Arc::clone(shared),
            session: Arc::clone(self),
        })
    }
}

impl Seat {
    pub(crate) fn new(backend: Arc<dyn Backend>, expires: Option<Expiry>) -> Arc<Self> {
        let done = backend.done();
        Arc::new(Self {
            backend,
            done,
            retired: CancellationToken::new(),
            expires,
            answered: AtomicBool::new(false),
            use_: Mutex::new(Use {
                open: true,
                exchanges: 0,
            }),
            emptied: Notify::new(),
        })
    }

    /// Begins an exchange; `None` if the backend is no longer the session's.
    pub(crate) fn enter(self: Arc<Self>) -> Option<Entered> {
        {
            let mut used = self.used();
            if !used.open {
                return None;
            }
            used.exchanges += 1;
        }
        Some(Entered(self))
    }

    /// Returns when no exchange is left. To be called when no more can enter.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.used().exchanges == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// An exchange has been answered by the backend. True for the first one.
    pub(crate) fn mark_answered(&self) -> bool {
        !self.answered.load(Ordering::Relaxed) && !self.answered.swap(true, Ordering::Relaxed)
    }

    fn retire(&self) {
        self.used().open = false;
        self.retired.cancel();
    }

    fn used(&self) -> MutexGuard<'_, Use> {
        self.use_.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut used = self.0.used();
        used.exchanges = used.exchanges.saturating_sub(1);
        if used.exchanges == 0 {
            self.0.emptied.notify_waiters();
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.session.inner().life.unpin(Instant::now());
        self.shared.mark_dirty(&self.session);
    }
}
