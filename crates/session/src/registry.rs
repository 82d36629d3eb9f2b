//! The registry itself: what an embedder holds.

use std::{
    future::Future,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    agenda::Agenda,
    caps::Caps,
    config::Config,
    ending::Shut,
    exchange,
    journal::{self, Journal},
    ports::{
        Body, Clock, EndReason, GrantId, NoopObserver, Observer, Records, RecordsError, Spawner, SystemClock, UserId,
    },
    reaper,
    renewals::Renewals,
    restore,
    revocations::{Revocations, Whose},
    rotator,
    seat::Session,
    sync::{Mutex, MutexGuard, Once, Tasks, timeout},
    table::Table,
};

/// The sessions of an MCP endpoint.
///
/// Dropping it ends all backends without waiting for them; [`Registry::stop`] waits.
#[derive(Debug)]
pub struct Registry {
    pub(crate) shared: Arc<Shared>,
}

/// Builds a [`Registry`]: a spawner is required, everything else has a default.
#[derive(Debug)]
pub struct RegistryBuilder {
    config: Config,
    spawner: Arc<dyn Spawner>,
    records: Option<Arc<dyn Records>>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
}

/// What the registry holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions that a client can use and that have a backend.
    pub attached: usize,
    /// Sessions that a client can use and that have no backend now.
    pub dormant: usize,
    /// Sessions whose backend starts or has not yet answered the handshake.
    pub opening: usize,
    /// Sessions that have ended and whose backend is still being stopped. They count towards the caps.
    pub stopping: usize,
}

/// What the parts of the registry share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Journal,
    pub(crate) table: Table,
    pub(crate) caps: Arc<Caps>,
    pub(crate) revocations: Revocations,
    pub(crate) renewals: Renewals,
    /// When the reaper looks at which session. Locked alone, and never for longer than a call of it.
    looks: Mutex<Agenda>,
    /// When the rotator does.
    rotations: Mutex<Agenda>,
    /// Tells the rotator not to wait for its next round.
    pub(crate) rotate_now: Notify,
    /// The keepers, revivals, rotations, and what comes round by itself.
    pub(crate) tasks: Tasks,
    /// Cancelled when no new session is taken any more.
    pub(crate) closing: CancellationToken,
    /// Cancelled when, on closing, nothing will be told to the journal any more.
    pub(crate) gathered: CancellationToken,
    /// Passed by whoever closes first, while the others wait.
    closed: Once,
}

impl RegistryBuilder {
    /// A registry without durable records, with the clock of the machine and without an observer.
    #[must_use]
    pub fn new(config: Config, spawner: Arc<dyn Spawner>) -> Self {
        Self {
            config,
            spawner,
            records: None,
            observer: Arc::new(NoopObserver),
            clock: Arc::new(SystemClock),
        }
    }

    /// Keeps sessions over restarts. Without records they last as long as the registry.
    #[must_use]
    pub fn records(self, records: Arc<dyn Records>) -> Self {
        Self {
            records: Some(records),
            ..self
        }
    }

    /// Reports events, for metrics.
    #[must_use]
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Replaces the wall clock that records and credentials are compared with.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Loads the sessions from the records and starts the tasks of the registry on the current runtime. The loaded sessions are
    /// dormant: the first request of each revives it.
    ///
    /// # Errors
    ///
    /// [`RecordsError`] if the records cannot be loaded.
    pub async fn open(self) -> Result<Registry, RecordsError> {
        let records = self.records.clone();
        let registry = self.build();
        if let Some(records) = records {
            restore::load(&registry.shared, records.as_ref()).await?;
        }
        registry.begin();
        Ok(registry)
    }

    /// A registry without its tasks.
    pub(crate) fn build(self) -> Registry {
        let shared = Shared {
            table: Table::new(self.config.tombstones),
            caps: Caps::new(self.config.max_sessions, self.config.max_sessions_per_user),
            revocations: Revocations::default(),
            renewals: Renewals::default(),
            journal: Journal::new(self.records),
            spawner: self.spawner,
            observer: self.observer,
            clock: self.clock,
            looks: Mutex::default(),
            rotations: Mutex::default(),
            rotate_now: Notify::new(),
            tasks: Tasks::new(),
            closing: CancellationToken::new(),
            gathered: CancellationToken::new(),
            closed: Once::new(),
            config: self.config,
        };
        Registry {
            shared: Arc::new(shared),
        }
    }
}

impl Registry {
    /// Makes a registry without durable records and starts its tasks on the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(config: Config, spawner: Arc<dyn Spawner>) -> Self {
        let registry = RegistryBuilder::new(config, spawner).build();
        registry.begin();
        registry
    }

    /// Serves one exchange at the MCP endpoint. A [`Caller`](crate::ports::Caller) has to be in the extensions of the
    /// request; without one the answer is 500 and nothing is spawned.
    ///
    /// Every answer that is not the backend's own is a JSON-RPC error with the id of the request. Dropping the future
    /// abandons the exchange; if it was opening a session, nothing is left of that.
    pub async fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        exchange::serve(&self.shared, request).await
    }

    /// Ends the sessions of a grant, those that are opening included.
    ///
    /// The call itself ends them: from then on their ids are answered with 404, and their backends are told to stop. A
    /// request on its way whose bearer was checked before opens no session ([`AuthenticatedAt`](crate::ports::AuthenticatedAt)). The
    /// future only waits until the backends are gone; dropping it takes nothing back.
    pub fn end_grant(&self, grant: &GrantId) -> impl Future<Output = ()> + Send + use<> {
        // Noted first: an opening that the table does not have yet will find the note.
        self.shared
            .revocations
            .note(Whose::Grant(grant.clone()), Instant::now());
        all_gone(
            self.shared
                .end_where(EndReason::Revoked, |session| session.grant == *grant),
        )
    }

    /// Ends the sessions of all of a user's grants, as [`Registry::end_grant`] does for one.
    pub fn end_user(&self, user: &UserId) -> impl Future<Output = ()> + Send + use<> {
        all_gone(self.shared.end_user(user))
    }

    /// Moves the sessions of a user that have a backend to fresh ones with the credential as it stands: for a user who has
    /// signed in anew. Returns at once; backends whose credential never expires are left alone.
    pub fn rotate_user(&self, user: &UserId) {
        let now = Instant::now();
        for session in self.shared.table.select(|session| session.user == *user) {
            if session.seat().is_some_and(|seat| seat.expires.is_some()) {
                self.shared.rotations().set(session.key, now);
            }
        }
        self.shared.rotate_now.notify_one();
    }

    /// Stops everything: new exchanges are refused (503), all backends are stopped in parallel, and what the records do not
    /// show yet is written. Returns when that is done, or after [`Config::stop_deadline`]. Idempotent, and safe from any number of
    /// callers; dropping the future does not take the order back.
    pub async fn stop(&self) {
        self.shared.close();
        let deadline = self.shared.config.stop_deadline;
        if timeout(deadline, self.shared.tasks.wait()).await.is_err() {
            let left = self.shared.caps.taken();
            tracing::error!(left, "backends are left after the stop deadline");
        }
    }

    /// How many sessions a grant has, those that are opening included.
    #[must_use]
    pub fn sessions_of_grant(&self, grant: &GrantId) -> usize {
        self.shared.table.select(|session| session.grant == *grant).len()
    }

    /// Counts what there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        // The slots first: a session that ends in between is then counted as stopping, not lost.
        let taken = self.shared.caps.taken();
        let sessions = self.shared.table.select(|_| true);
        let mut stats = Stats {
            stopping: taken.saturating_sub(sessions.len()),
            ..Stats::default()
        };
        for session in &sessions {
            if session.inner().life.is_opening() {
                stats.opening += 1;
            } else if session.seat().is_some() {
                stats.attached += 1;
            } else {
                stats.dormant += 1;
            }
        }
        stats
    }

    fn begin(&self) {
        let shared = &self.shared;
        shared.tasks.spawn(reaper::run(Arc::clone(shared)));
        shared.tasks.spawn(rotator::run(Arc::clone(shared)));
        shared.tasks.spawn(journal::run(Arc::clone(shared)));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// Ends the sessions of all grants of a user.
    pub(crate) fn end_user(&self, user: &UserId) -> Vec<Arc<Session>> {
        self.revocations.note(Whose::User(user.clone()), Instant::now());
        self.end_where(EndReason::Revoked, |session| session.user == *user)
    }

    pub(crate) fn looks(&self) -> MutexGuard<'_, Agenda> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rotations(&self) -> MutexGuard<'_, Agenda> {
        self.rotations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the reaper look at a session.
    pub(crate) fn plan_look(&self, session: &Session, at: Instant) {
        self.looks().set(session.key, at);
    }

    /// A session has gone to sleep: nothing of it is to be rotated, and one day it ends.
    pub(crate) fn plan_sleep(&self, session: &Session) {
        self.rotations().cancel(&session.key);
        let last_activity = session.inner().life.last_activity();
        self.plan_look(session, last_activity.unwrap_or_else(Instant::now) + self.config.retain);
    }

    /// Ends what is wanted, and tells what that was.
    fn end_where(&self, why: EndReason, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let sessions = self.table.select(wanted);
        for session in &sessions {
            self.end(session, why, Shut::Whatever);
        }
        sessions
    }

    /// Closes the intake first, so that nothing comes in behind the sessions that are ended.
    fn close(&self) {
        self.closed.call_once(|| {
            self.table.close();
            self.closing.cancel();
            self.gather_last();
            self.end_where(EndReason::Shutdown, |_| true);
            // Each session has ended by now, and whatever else ended one has told the journal so.
            self.gathered.cancel();
        });
        self.tasks.close();
    }
}

/// Returns when nothing is left of the backends of `sessions`.
async fn all_gone(sessions: Vec<Arc<Session>>) {
    for session in sessions {
        session.gone.cancelled().await;
    }
}
