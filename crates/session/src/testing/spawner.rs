//! A spawner that records its orders and starts a scripted backend for each.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use secrecy::ExposeSecret;
use tokio::sync::{oneshot, watch};

use super::{REJECTED_TOKEN, ScriptedBackend, credentials::far_future, lock, scheduling_point};
use crate::ports::{Backend, BoxError, BoxFuture, CredentialError, SpawnError, SpawnOrder, Spawner};

/// The outcome of a spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnOutcome {
    /// The backend answers every request.
    Ready,
    /// The backend answers `initialize` with a JSON-RPC error.
    RefusesInitialize,
    /// The backend answers `initialize` with an event stream.
    StreamsInitialize,
    /// The backend answers `initialize` with an event stream after
    /// [`LATE_STREAM_DELAY`](super::LATE_STREAM_DELAY).
    StreamsInitializeLate,
    /// The backend never answers `initialize`.
    IgnoresInitialize,
    /// The backend dies when it receives `initialize`.
    DiesAtInitialize,
    /// The spawn fails with [`SpawnError::Credentials`].
    Credentials,
    /// The spawn fails with [`SpawnError::Unavailable`].
    Unavailable,
    /// The spawn fails with [`SpawnError::Failed`].
    Failed,
    /// The spawn fails with [`SpawnError::NotReady`].
    NotReady,
}

/// Starts a [`ScriptedBackend`] for each order, either at once or when the test resolves the order.
///
/// It asks the caller's credentials for the current one. A backend that was started with
/// [`REJECTED_TOKEN`] dies at its start.
#[derive(Debug)]
pub struct ScriptedSpawner {
    /// `None`: each order waits for [`ScriptedSpawner::resolve`].
    outcome: Option<SpawnOutcome>,
    /// Set for benchmarks: nothing is recorded, and this is the snapshot of every backend.
    unrecorded: Option<Bytes>,
    stops_held: watch::Sender<bool>,
    renews_credentials: AtomicBool,
    spawns: AtomicUsize,
    log: Mutex<SpawnLog>,
}

#[derive(Debug, Default)]
struct SpawnLog {
    orders: Vec<SpawnOrder>,
    /// The orders that wait for their outcome, by session.
    pending: Vec<(Arc<str>, oneshot::Sender<SpawnOutcome>)>,
    backends: Vec<Arc<ScriptedBackend>>,
    peak_running: usize,
    /// The session of each spawn in progress.
    in_progress: Vec<Arc<str>>,
    /// The most spawns that one session had in progress at a time.
    peak_in_progress: usize,
}

/// Counts a spawn of a session while it is in progress.
struct InProgressGuard<'a> {
    spawner: &'a ScriptedSpawner,
    tag: Arc<str>,
}

impl ScriptedSpawner {
    /// Every order has the same outcome at once.
    #[must_use]
    pub fn immediate(outcome: SpawnOutcome) -> Arc<Self> {
        Arc::new(Self::new(Some(outcome), None))
    }

    /// Every order waits until the test resolves it.
    #[must_use]
    pub fn manual() -> Arc<Self> {
        Arc::new(Self::new(None, None))
    }

    /// For benchmarks: records nothing. Each backend starts at once, answers every request with the
    /// same result, and has a copy of `snapshot` as its snapshot.
    #[must_use]
    pub fn unrecorded(snapshot: Bytes) -> Arc<Self> {
        Arc::new(Self::new(Some(SpawnOutcome::Ready), Some(snapshot)))
    }

    fn new(outcome: Option<SpawnOutcome>, unrecorded: Option<Bytes>) -> Self {
        Self {
            outcome,
            unrecorded,
            stops_held: watch::Sender::new(false),
            renews_credentials: AtomicBool::new(false),
            spawns: AtomicUsize::new(0),
            log: Mutex::default(),
        }
    }

    /// Resolves the latest pending spawn of the session `tag`. False if the registry no longer
    /// waits for it.
    ///
    /// # Panics
    ///
    /// If the session has no pending spawn.
    pub fn resolve(&self, tag: &str, outcome: SpawnOutcome) -> bool {
        let mut log = lock(&self.log);
        let index = log.pending.iter().rposition(|(of, _)| &**of == tag);
        let (_, resolve) = log.pending.remove(index.expect("a pending spawn of the session"));
        resolve.send(outcome).is_ok()
    }

    /// Resolves the spawn of the latest order, as [`ScriptedSpawner::resolve`] does.
    ///
    /// # Panics
    ///
    /// If that spawn is not pending.
    pub fn resolve_last(&self, outcome: SpawnOutcome) -> bool {
        self.resolve(&self.last_order().tag, outcome)
    }

    /// The tags of the sessions whose spawns are pending, one for each spawn.
    pub fn pending(&self) -> Vec<Arc<str>> {
        let mut log = lock(&self.log);
        log.pending.retain(|(_, resolve)| !resolve.is_closed());
        log.pending.iter().map(|(tag, _)| Arc::clone(tag)).collect()
    }

    /// Holds the stops of all backends until it is called with false.
    pub fn hold_stops(&self, hold: bool) {
        self.stops_held.send_replace(hold);
    }

    /// The latest argument of [`ScriptedSpawner::hold_stops`].
    pub fn holds_stops(&self) -> bool {
        *self.stops_held.borrow()
    }

    /// Sets the answer to [`Spawner::renews_credentials`].
    pub fn set_renews_credentials(&self, renews: bool) {
        self.renews_credentials.store(renews, Ordering::SeqCst);
    }

    /// The number of orders so far, failed ones included.
    pub fn spawn_count(&self) -> usize {
        self.spawns.load(Ordering::SeqCst)
    }

    /// All orders, the oldest first.
    pub fn orders(&self) -> Vec<SpawnOrder> {
        lock(&self.log).orders.clone()
    }

    /// The latest order.
    ///
    /// # Panics
    ///
    /// If there was none.
    pub fn last_order(&self) -> SpawnOrder {
        lock(&self.log).orders.last().expect("an order").clone()
    }

    /// All backends, those included that have exited, the oldest first.
    pub fn backends(&self) -> Vec<Arc<ScriptedBackend>> {
        lock(&self.log).backends.clone()
    }

    /// The backends that run, the oldest first.
    pub fn running_backends(&self) -> Vec<Arc<ScriptedBackend>> {
        lock(&self.log).running().cloned().collect()
    }

    /// The latest backend of the session `tag`.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn backend(&self, tag: &str) -> Arc<ScriptedBackend> {
        let backends = self.backends();
        let of_session = backends.iter().rfind(|backend| backend.tag() == tag);
        Arc::clone(of_session.expect("a backend of the session"))
    }

    /// The latest backend.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn last_backend(&self) -> Arc<ScriptedBackend> {
        Arc::clone(lock(&self.log).backends.last().expect("a backend"))
    }

    /// The number of backends that run.
    pub fn running(&self) -> usize {
        lock(&self.log).running().count()
    }

    /// The most backends that ran at a time.
    pub fn peak_running(&self) -> usize {
        lock(&self.log).peak_running
    }

    /// The most spawns that one session had in progress at a time.
    pub fn peak_spawns_of_session(&self) -> usize {
        lock(&self.log).peak_in_progress
    }

    /// Returns true while a spawn is in progress.
    pub fn is_spawning(&self) -> bool {
        !lock(&self.log).in_progress.is_empty()
    }

    /// Waits until the test resolves the spawn.
    async fn next_outcome(&self, tag: &Arc<str>) -> SpawnOutcome {
        let (resolve, resolved) = oneshot::channel();
        lock(&self.log).pending.push((Arc::clone(tag), resolve));
        resolved.await.expect("the spawner outlives its spawns")
    }

    async fn start(&self, order: SpawnOrder) -> Result<Arc<dyn Backend>, SpawnError> {
        self.spawns.fetch_add(1, Ordering::SeqCst);
        let (tag, snapshot) = (Arc::clone(&order.tag), order.snapshot.clone());
        let credentials = Arc::clone(&order.caller.credentials);
        let recorded = self.unrecorded.is_none();
        let _guard = recorded.then(|| InProgressGuard::new(self, Arc::clone(&tag)));
        if recorded {
            lock(&self.log).orders.push(order);
        }
        let outcome = match self.outcome {
            Some(outcome) => outcome,
            None => self.next_outcome(&tag).await,
        };
        let credential = credentials.current().await.map_err(|error| match error {
            CredentialError::Terminal(error) => SpawnError::Credentials(error),
            CredentialError::Transient(error) => SpawnError::Unavailable(error),
        })?;
        scheduling_point().await;
        let outcome = match credential.access_token.expose_secret() {
            // A server that presents the token at its start exits.
            REJECTED_TOKEN if snapshot.is_some() => SpawnOutcome::Failed,
            REJECTED_TOKEN => SpawnOutcome::DiesAtInitialize,
            _ => outcome,
        };
        let cause = || BoxError::from("SECRET-REASON");
        match outcome {
            SpawnOutcome::Credentials => return Err(SpawnError::Credentials(cause())),
            SpawnOutcome::Unavailable => return Err(SpawnError::Unavailable(cause())),
            SpawnOutcome::Failed => return Err(SpawnError::Failed(cause())),
            SpawnOutcome::NotReady => return Err(SpawnError::NotReady(cause())),
            SpawnOutcome::Ready
            | SpawnOutcome::RefusesInitialize
            | SpawnOutcome::StreamsInitialize
            | SpawnOutcome::StreamsInitializeLate
            | SpawnOutcome::IgnoresInitialize
            | SpawnOutcome::DiesAtInitialize => {}
        }
        let expires_at = (credential.expires_at < far_future()).then_some(credential.expires_at);
        let backend = Arc::new(ScriptedBackend::new(
            tag,
            outcome,
            snapshot,
            expires_at,
            self.unrecorded.clone(),
            self.stops_held.subscribe(),
        ));
        if recorded {
            let mut log = lock(&self.log);
            log.backends.push(Arc::clone(&backend));
            log.peak_running = log.peak_running.max(log.running().count());
        }
        Ok(backend)
    }
}

impl Spawner for ScriptedSpawner {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(self.start(order))
    }

    fn renews_credentials(&self) -> bool {
        self.renews_credentials.load(Ordering::SeqCst)
    }
}

impl SpawnLog {
    fn running(&self) -> impl Iterator<Item = &Arc<ScriptedBackend>> {
        self.backends.iter().filter(|backend| !backend.has_exited())
    }
}

impl<'a> InProgressGuard<'a> {
    fn new(spawner: &'a ScriptedSpawner, tag: Arc<str>) -> Self {
        let mut log = lock(&spawner.log);
        log.in_progress.push(Arc::clone(&tag));
        let of_session = log.in_progress.iter().filter(|of| **of == tag).count();
        log.peak_in_progress = log.peak_in_progress.max(of_session);
        Self { spawner, tag }
    }
}

impl Drop for InProgressGuard<'_> {
    fn drop(&mut self) {
        let mut log = lock(&self.spawner.log);
        if let Some(index) = log.in_progress.iter().position(|tag| *tag == self.tag) {
            log.in_progress.swap_remove(index);
        }
    }
}
