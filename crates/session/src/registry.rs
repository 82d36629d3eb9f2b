//! The registry itself: what an embedder holds.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::Request;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    client::dispatch::{self, Served},
    config::Config,
    pass_through::PassThrough,
    ports::{
        Clock, EndReason, GrantId, Host, NoopObserver, Observer, Records, RecordsError, RevokedSubject, Spawner,
        SystemClock, UserId,
    },
    records::{restore, write_behind},
    servers::{reaper, rotate},
    state::{
        ChangeQueue, Deadlines, Initializes, Phase, Quota, RegistryState, RenewalGate, Revocations, Session,
        SessionTable, StartBackoffs,
    },
    sync::{Mutex, Once, Tasks, timeout},
};

/// The sessions of an MCP endpoint.
///
/// Dropping it ends all backends without waiting for them; [`Registry::stop`] waits.
#[derive(Debug)]
pub struct Registry {
    pub(crate) state: Arc<RegistryState>,
    /// Completed by the first call that closes the registry, while the others wait.
    closed: Once,
}

/// Builds a [`Registry`]: a spawner or a host is required, everything else has a default.
#[derive(Debug)]
pub struct RegistryBuilder {
    config: Config,
    host: Arc<dyn Host>,
    records: Option<Arc<dyn Records>>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
}

/// The number of sessions by their phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions whose backend starts or has not yet answered the handshake.
    pub opening: usize,
    /// Sessions that a client can use and that have a backend.
    pub attached: usize,
    /// Sessions that a client can use and that have no backend now.
    pub dormant: usize,
    /// Sessions that have ended and whose backend is still being stopped. They count towards the
    /// quotas.
    pub stopping: usize,
}

impl RegistryBuilder {
    /// A registry without durable records, with the clock of the machine and without an observer.
    #[must_use]
    pub fn new(config: Config, spawner: Arc<dyn Spawner>) -> Self {
        let host = PassThrough::new(spawner, config.keep_alive);
        Self::hosted(config, Arc::new(host))
    }

    /// As [`RegistryBuilder::new`], with conversations of the embedder's own.
    #[must_use]
    pub fn hosted(config: Config, host: Arc<dyn Host>) -> Self {
        Self {
            config,
            host,
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

    /// Loads the sessions of the records and starts the tasks of the registry on the current
    /// runtime. The loaded sessions are dormant: the first request of each revives it.
    ///
    /// # Errors
    ///
    /// [`RecordsError`] if the records cannot be loaded.
    pub async fn open(self) -> Result<Registry, RecordsError> {
        let records = self.records.clone();
        let registry = self.build();
        if let Some(records) = records {
            restore::load(&registry.state, records.as_ref()).await?;
        }
        registry.start_tasks();
        Ok(registry)
    }

    /// A registry without its periodic tasks.
    pub(crate) fn build(self) -> Registry {
        let state = RegistryState {
            table: SessionTable::new(self.config.tombstones),
            quota: Quota::new(self.config.max_sessions, self.config.max_sessions_per_user),
            changes: ChangeQueue::new(self.records.is_some()),
            revocations: Revocations::default(),
            initializes: Initializes::default(),
            making: Mutex::default(),
            renewal_gate: RenewalGate::default(),
            reap_deadlines: Deadlines::default(),
            rotation_deadlines: Deadlines::default(),
            rotate_now: Notify::new(),
            tasks: Tasks::new(),
            closing: CancellationToken::new(),
            last_changes_queued: CancellationToken::new(),
            host: self.host,
            start_backoffs: StartBackoffs::default(),
            records_are_shared: self.records.as_ref().is_some_and(|records| records.is_shared()),
            records: self.records,
            observer: self.observer,
            clock: self.clock,
            config: self.config,
        };
        Registry {
            state: Arc::new(state),
            closed: Once::new(),
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
        registry.start_tasks();
        registry
    }

    /// Serves one exchange at the MCP endpoint. An [`Arc<Caller>`](crate::ports::Caller) has to be
    /// in the extensions of the request; without one the answer is 500 and nothing is spawned.
    ///
    /// Every answer that is not the backend's own is a JSON-RPC error with the id of the request.
    /// Dropping the future abandons the exchange; if it was opening a session, nothing is left of
    /// that.
    pub async fn serve(&self, request: Request<Bytes>) -> Served {
        dispatch::serve(&self.state, request).await
    }

    /// Ends the sessions of a grant, including those that are opening.
    ///
    /// The call itself ends them: from then on their ids are answered with 404, and their backends
    /// are being stopped. A request whose bearer was checked before opens no session afterwards
    /// ([`AuthenticatedAt`](crate::ports::AuthenticatedAt)). The future only waits until the
    /// backends are gone; dropping it takes nothing back.
    pub fn end_grant(&self, grant: &GrantId) -> impl Future<Output = ()> + Send + use<> {
        let subject = RevokedSubject::Grant(grant.clone());
        all_gone(self.state.revoke(subject, |session| session.grant == *grant))
    }

    /// Ends the sessions of all of a user's grants, as [`Registry::end_grant`] does for one.
    pub fn end_user(&self, user: &UserId) -> impl Future<Output = ()> + Send + use<> {
        all_gone(self.state.end_user(user))
    }

    /// Moves the sessions of a user that have a backend to new backends with the current
    /// credential, after the user has signed in again. Returns at once. Backends whose credential
    /// never expires are left alone.
    pub fn rotate_user(&self, user: &UserId) {
        let now = Instant::now();
        for session in self.state.table.select(|session| session.user == *user) {
            if session.server().is_some_and(|server| server.expiry.is_some()) {
                self.state.rotation_deadlines.set(session.key, Some(now));
            }
        }
        self.state.rotate_now.notify_one();
    }

    /// Stops everything: new exchanges are refused (503), all backends are stopped in parallel, and
    /// pending changes are written to the records. Returns when that is done, or after
    /// [`Config::stop_deadline`]. Idempotent, and safe from any number of callers; dropping the
    /// future does not take the order back.
    pub async fn stop(&self) {
        self.close();
        let deadline = self.state.config.stop_deadline;
        if timeout(deadline, self.state.tasks.wait()).await.is_err() {
            let left = self.state.quota.in_use();
            tracing::error!(left, "backends are still running after the stop deadline");
        }
    }

    /// The number of sessions of a grant, including those that are opening.
    #[must_use]
    pub fn sessions_of_grant(&self, grant: &GrantId) -> usize {
        self.state.table.select(|session| session.grant == *grant).len()
    }

    /// Counts the sessions.
    #[must_use]
    pub fn stats(&self) -> Stats {
        // The permits first: a session that ends in between is then counted as stopping, not lost.
        let in_use = self.state.quota.in_use();
        let sessions = self.state.table.select(|_| true);
        let mut stats = Stats {
            stopping: in_use.saturating_sub(sessions.len()),
            ..Stats::default()
        };
        for session in &sessions {
            match session.lock().lifecycle.phase() {
                Phase::Opening { .. } => stats.opening += 1,
                Phase::Attached { .. } => stats.attached += 1,
                // One that has just ended is still in the table.
                Phase::Dormant | Phase::Ended(_) => stats.dormant += 1,
            }
        }
        stats
    }

    fn start_tasks(&self) {
        let state = &self.state;
        state.tasks.spawn(reaper::run(Arc::clone(state)));
        state.tasks.spawn(rotate::run(Arc::clone(state)));
        state.tasks.spawn(write_behind::run(Arc::clone(state)));
    }

    /// Refuses new sessions first, so that none is inserted behind those that are ended.
    fn close(&self) {
        self.closed.call_once(|| {
            self.state.table.close();
            self.state.closing.cancel();
            write_behind::gather_last(&self.state);
            self.state.end_where(EndReason::Shutdown, |_| true);
            // Each session has ended by now, and its end is queued.
            self.state.last_changes_queued.cancel();
        });
        self.state.tasks.close();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns when nothing is left of the backends of `sessions`.
async fn all_gone(sessions: Vec<Arc<Session>>) {
    for session in sessions {
        session.gone.cancelled().await;
    }
}
