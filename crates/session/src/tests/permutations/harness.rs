//! A registry with scripted surroundings, and the invariants that hold when no task can run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use shuttle::future::{JoinHandle, spawn, yield_now};
use tokio::time::Instant;

use crate::{
    Config, Registry, RegistryBuilder, Stats,
    exchange::MCP_SESSION_ID,
    ports::{
        BoxFuture, Caller, Change, DetachReason, Event, GrantId, LastInitialize, Observer, Record, Records,
        RecordsError, SessionKey, Snapshot, SystemClock,
    },
    state::{RegistryState, Session},
    testing::{ScriptedBackend, ScriptedCredentials, ScriptedHost, ScriptedSpawner, SpawnOutcome, caller},
};

pub(super) struct Harness {
    pub(super) registry: Arc<Registry>,
    pub(super) spawner: Arc<ScriptedSpawner>,
    pub(super) credentials: Arc<ScriptedCredentials>,
    pub(super) caller: Arc<Caller>,
    rotations: Arc<RotationCount>,
}

#[derive(Debug, Default)]
struct RotationCount(AtomicUsize);

/// Has a record of every session and accepts every change.
#[derive(Debug)]
struct AnyRecord;

impl Harness {
    pub(super) fn new(config: Config) -> Self {
        let spawner = ScriptedSpawner::immediate(SpawnOutcome::Ready);
        let builder = RegistryBuilder::new(config, Arc::clone(&spawner) as _);
        Self::with(builder, spawner)
    }

    /// A registry whose conversations are scripted, and which has one record for each session.
    pub(super) fn hosted(config: Config, host: &Arc<ScriptedHost>) -> Self {
        let builder = RegistryBuilder::hosted(config, Arc::clone(host) as _).records(Arc::new(AnyRecord));
        Self::with(builder, ScriptedSpawner::immediate(SpawnOutcome::Ready))
    }

    fn with(builder: RegistryBuilder, spawner: Arc<ScriptedSpawner>) -> Self {
        let rotations = Arc::<RotationCount>::default();
        let builder = builder.observer(Arc::clone(&rotations) as _);
        let credentials = ScriptedCredentials::expiring(Arc::new(SystemClock), Duration::from_secs(3600));
        let credentials = Arc::new(credentials);
        let caller = Caller {
            credentials: Arc::clone(&credentials) as _,
            ..Arc::unwrap_or_clone(caller("ann/phone"))
        };
        Self {
            registry: Arc::new(builder.build()),
            spawner,
            credentials,
            caller: Arc::new(caller),
            rotations,
        }
    }

    pub(super) fn state(&self) -> &Arc<RegistryState> {
        &self.registry.state
    }

    pub(super) fn request(&self, method: Method, id: Option<&str>, body: &'static str) -> Request<Bytes> {
        let mut request = Request::new(Bytes::from_static(body.as_bytes()));
        *request.method_mut() = method;
        if let Some(id) = id {
            let id = id.parse().expect("a header value");
            request.headers_mut().insert(MCP_SESSION_ID, id);
        }
        request.extensions_mut().insert(Arc::clone(&self.caller));
        request
    }

    /// A request without a session id that belongs where `route` says.
    pub(super) fn routed(&self, method: Method, route: &'static str, body: &'static str) -> Request<Bytes> {
        let mut request = self.request(method, None, body);
        request.headers_mut().insert("route", HeaderValue::from_static(route));
        request
    }

    pub(super) fn initialize(&self) -> Request<Bytes> {
        self.request(Method::POST, None, r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#)
    }

    pub(super) fn ping(&self, id: &str) -> Request<Bytes> {
        self.request(Method::POST, Some(id), r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)
    }

    pub(super) fn delete(&self, id: &str) -> Request<Bytes> {
        self.request(Method::DELETE, Some(id), "")
    }

    /// Serves a request: the status, and the id of a session that it opened.
    pub(super) async fn serve(&self, request: Request<Bytes>) -> (u16, Option<String>) {
        serve(&self.registry, request).await
    }

    /// Serves a request on a task of its own.
    pub(super) fn send(&self, request: Request<Bytes>) -> JoinHandle<(u16, Option<String>)> {
        let registry = Arc::clone(&self.registry);
        spawn(async move { serve(&registry, request).await })
    }

    /// Ends the grant on a task of its own.
    pub(super) fn revoke(&self) -> JoinHandle<()> {
        let (registry, grant) = (Arc::clone(&self.registry), self.caller.grant.clone());
        spawn(async move { registry.end_grant(&grant).await })
    }

    /// Opens the only session of the registry.
    pub(super) async fn open(&self) -> (String, Arc<Session>) {
        let (status, id) = self.serve(self.initialize()).await;
        assert_eq!(status, 200);
        let mut sessions = self.state().table.select(|_| true);
        assert_eq!(sessions.len(), 1);
        (id.expect("an id"), sessions.remove(0))
    }

    pub(super) fn running(&self) -> Vec<Arc<ScriptedBackend>> {
        self.spawner.running_backends()
    }

    pub(super) fn rotations(&self) -> usize {
        self.rotations.0.load(Ordering::SeqCst)
    }

    /// Waits until no task but those of attached backends is left, and checks the invariants: each
    /// running backend is the attached one of a session that has not ended, the quota counts
    /// exactly the sessions, and each session has the deadlines of its phase.
    pub(super) async fn quiesce(&self) -> Stats {
        let sessions = self.state().table.select(|_| true);
        // The task of a backend releases its quota last.
        loop {
            let attached = sessions.iter().filter(|session| session.server().is_some()).count();
            if self.running().len() <= attached && self.state().quota.in_use() <= sessions.len() {
                break;
            }
            yield_now().await;
        }
        for backend in self.running() {
            let session = sessions.iter().find(|session| &*session.tag == backend.tag());
            let attached = session
                .and_then(|session| session.server())
                .expect("the session of a running backend");
            assert!(!attached.server.is_gone(), "a running backend is not the attached one");
        }
        assert_eq!(self.state().quota.in_use(), sessions.len());
        let now = Instant::now();
        for session in &sessions {
            let (config, attached) = (&self.state().config, session.server().is_some());
            let limit = if attached { config.idle_timeout } else { config.retain };
            let reap_at = self.state().reap_deadlines.of(&session.key).expect("a deadline");
            assert!(reap_at <= now + limit, "the reaper comes too late");
            let rotation = self.state().rotation_deadlines.of(&session.key);
            assert_eq!(rotation.is_some(), attached, "an attached backend is rotated in time");
        }
        assert!(sessions.iter().all(|session| !session.lock().lifecycle.is_waking()));
        self.registry.stats()
    }

    /// Stops the registry and checks that nothing is left.
    pub(super) async fn stop(self) {
        self.registry.stop().await;
        assert_eq!(self.running().len(), 0, "a backend is left");
        assert_eq!(self.registry.stats(), Stats::default());
        assert!(!self.spawner.is_spawning());
    }
}

async fn serve(registry: &Registry, request: Request<Bytes>) -> (u16, Option<String>) {
    let response = registry.serve(request).await.response;
    let id = response.headers().get(MCP_SESSION_ID);
    let id = id.map(|id| id.to_str().expect("text").to_owned());
    (response.status().as_u16(), id)
}

/// Detaches the backend of a session as the reaper does.
pub(super) fn detach_idle(state: &RegistryState, session: &Session) {
    if let Some(server) = session.server() {
        state.detach(session, &server, DetachReason::Idle);
    }
}

/// Sessions outlive their backends.
pub(super) fn durable() -> Config {
    Config {
        retain: Duration::from_secs(3600),
        idle_timeout: Duration::ZERO,
        ..Config::default()
    }
}

impl Observer for RotationCount {
    fn on(&self, event: Event) {
        if event == Event::Rotated {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Records for AnyRecord {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Record>, RecordsError>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn snapshot(&self, _key: SessionKey) -> BoxFuture<'_, Result<Option<Snapshot>, RecordsError>> {
        Box::pin(async {
            yield_now().await;
            Ok(Some(Snapshot("opened".into())))
        })
    }

    fn ended(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<SessionKey>, RecordsError>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn last_initialize<'a>(
        &'a self,
        _grant: &'a GrantId,
    ) -> BoxFuture<'a, Result<Option<LastInitialize>, RecordsError>> {
        Box::pin(async {
            yield_now().await;
            Ok(None)
        })
    }

    fn forget_initializes(&self, _before: SystemTime) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async { Ok(()) })
    }

    fn forget_ended(&self, _before: SystemTime, _limit: usize) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async { Ok(()) })
    }

    fn apply(&self, _changes: Vec<Change>) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async {
            yield_now().await;
            Ok(())
        })
    }
}
