//! A registry with scripted surroundings: backends, credentials, durable records and the wall
//! clock.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use session::{
    Config, PassThrough, Registry, RegistryBuilder, Served,
    ports::{
        Body, BoxError, Caller, Clock, Conversation, ConversationInfo, Event, Host, Observer, Route, SessionHandle,
        Snapshot,
    },
    testing::{
        ScriptedCredentials, ScriptedHost, ScriptedSpawner, SpawnOutcome, caller, initial_snapshot_by_header,
        route_by_header,
    },
};
use tokio::{task::JoinSet, time::Instant};

use crate::memory_records::MemoryRecords;

/// The lifetime of expiring credentials.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

/// The retention of [`durable`] sessions.
pub(crate) const RETAIN: Duration = Duration::from_secs(24 * 3600);

/// A message that ends the handshake.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) registry: Arc<Registry>,
    pub(crate) spawner: Arc<ScriptedSpawner>,
    /// Used instead of the spawner if there is one.
    host: Option<Arc<ScriptedHost>>,
    pub(crate) records: Arc<MemoryRecords>,
    events: Arc<RecordedEvents>,
    /// By user. Permanent ones if there is no clock.
    credentials: Mutex<BTreeMap<String, Arc<ScriptedCredentials>>>,
    clock: Option<Arc<PausedClock>>,
    config: Config,
}

/// The pass-through host with the routes of [`ScriptedHost`].
#[derive(Debug)]
struct RoutedPassThrough(PassThrough);

/// The wall clock of paused time.
#[derive(Debug)]
struct PausedClock(Instant);

#[derive(Debug, Default)]
struct RecordedEvents(Mutex<Vec<Event>>);

/// The output of a task that runs while the test goes on. The task is aborted when this is dropped.
#[derive(Debug)]
pub(crate) struct InBackground<T>(JoinSet<T>);

impl Harness {
    /// The registry keeps records, credentials expire after [`LIFETIME`], and each backend starts
    /// at once.
    pub(crate) async fn new(config: Config) -> Self {
        Self::with_spawner(config, ScriptedSpawner::immediate(SpawnOutcome::Ready)).await
    }

    /// As [`Harness::new`], but the test resolves each spawn.
    pub(crate) async fn manual(config: Config) -> Self {
        Self::with_spawner(config, ScriptedSpawner::manual()).await
    }

    pub(crate) async fn with_spawner(config: Config, spawner: Arc<ScriptedSpawner>) -> Self {
        Self::with(config, spawner, None).await
    }

    /// A registry whose conversations are scripted.
    pub(crate) async fn hosted(config: Config, host: &Arc<ScriptedHost>) -> Self {
        Self::with(config, ScriptedSpawner::manual(), Some(Arc::clone(host))).await
    }

    async fn with(config: Config, spawner: Arc<ScriptedSpawner>, host: Option<Arc<ScriptedHost>>) -> Self {
        let clock = Arc::new(PausedClock(Instant::now()));
        let (records, events) = (Arc::<MemoryRecords>::default(), Arc::<RecordedEvents>::default());
        let mut harness = Self {
            registry: Arc::new(Registry::new(config.clone(), Arc::clone(&spawner) as _)),
            spawner,
            host,
            records,
            events,
            credentials: Mutex::default(),
            clock: Some(clock),
            config,
        };
        harness.restart().await;
        harness
    }

    /// A registry with a spawner and nothing else. Credentials never expire, and each backend
    /// starts at once.
    pub(crate) fn plain(config: Config) -> Self {
        Self::plain_with_outcome(config, SpawnOutcome::Ready)
    }

    pub(crate) fn plain_with_outcome(config: Config, outcome: SpawnOutcome) -> Self {
        Self::plain_with_spawner(config, ScriptedSpawner::immediate(outcome))
    }

    /// As [`Harness::plain`], but the test resolves each spawn.
    pub(crate) fn plain_manual(config: Config) -> Self {
        Self::plain_with_spawner(config, ScriptedSpawner::manual())
    }

    fn plain_with_spawner(config: Config, spawner: Arc<ScriptedSpawner>) -> Self {
        Self {
            registry: Arc::new(Registry::new(config.clone(), Arc::clone(&spawner) as _)),
            spawner,
            host: None,
            records: Arc::default(),
            events: Arc::default(),
            credentials: Mutex::default(),
            clock: None,
            config,
        }
    }

    /// A registry whose conversations are scripted, without records. Credentials never expire.
    pub(crate) async fn plain_hosted(config: Config, host: &Arc<ScriptedHost>) -> Self {
        let builder = RegistryBuilder::hosted(config.clone(), Arc::clone(host) as _);
        let registry = builder.open().await.expect("no records");
        Self {
            registry: Arc::new(registry),
            ..Self::plain_manual(config)
        }
    }

    /// Opens another registry on the same records, as after a restart of the process.
    pub(crate) async fn restart(&mut self) {
        let clock = self.clock.as_ref().expect("a plain registry keeps no records");
        let host: Arc<dyn Host> = match &self.host {
            Some(host) => Arc::clone(host) as _,
            None => {
                let host = PassThrough::new(Arc::clone(&self.spawner) as _, self.config.keep_alive);
                Arc::new(RoutedPassThrough(host))
            }
        };
        let builder = RegistryBuilder::hosted(self.config.clone(), host);
        let builder = builder
            .records(Arc::clone(&self.records) as _)
            .observer(Arc::clone(&self.events) as _)
            .clock(Arc::clone(clock) as _);
        self.registry = Arc::new(builder.open().await.expect("records"));
    }

    /// Sets the quota of a user for registries that are opened later.
    pub(crate) fn set_user_quota(&mut self, quota: usize) {
        self.config.max_sessions_per_user = quota;
    }

    /// The credentials of a user.
    pub(crate) fn credentials(&self, user: &str) -> Arc<ScriptedCredentials> {
        let mut all = lock(&self.credentials);
        let credentials = all.entry(user.to_owned()).or_insert_with(|| {
            Arc::new(match &self.clock {
                Some(clock) => ScriptedCredentials::expiring(Arc::clone(clock) as _, LIFETIME),
                None => ScriptedCredentials::permanent(),
            })
        });
        Arc::clone(credentials)
    }

    /// A request of the caller `who`, with a session id if there is one.
    pub(crate) fn request(&self, method: Method, who: &str, id: Option<&str>, body: &str) -> Request<Bytes> {
        let mut request = Request::new(Bytes::copy_from_slice(body.as_bytes()));
        *request.method_mut() = method;
        if let Some(id) = id {
            let id = id.parse().expect("a header value");
            request.headers_mut().insert("mcp-session-id", id);
        }
        let caller = Arc::unwrap_or_clone(caller(who));
        let credentials = self.credentials(&caller.user.0) as _;
        request
            .extensions_mut()
            .insert(Arc::new(Caller { credentials, ..caller }));
        request
    }

    /// A request without a session id that belongs where `route` says ([`ScriptedHost`]).
    pub(crate) fn routed(&self, method: Method, who: &str, route: &str, body: &str) -> Request<Bytes> {
        let mut request = self.request(method, who, None, body);
        let route = route.parse().expect("a header value");
        request.headers_mut().insert("route", route);
        request
    }

    pub(crate) async fn send_routed(&self, method: Method, who: &str, route: &str, body: &str) -> Response<Body> {
        let request = self.routed(method, who, route, body);
        self.registry.serve(request).await.response
    }

    /// The status and the body of the answer to a call with the id 7 and without a session id.
    pub(crate) async fn call(&self, who: &str, route: &str) -> (u16, String) {
        status_and_text(self.send_routed(Method::POST, who, route, &rpc("7", "ping")).await).await
    }

    pub(crate) async fn serve(&self, method: Method, who: &str, id: Option<&str>, body: &str) -> Served {
        self.registry.serve(self.request(method, who, id, body)).await
    }

    pub(crate) async fn send(&self, method: Method, who: &str, id: Option<&str>, body: &str) -> Response<Body> {
        self.serve(method, who, id, body).await.response
    }

    pub(crate) async fn post(&self, who: &str, id: Option<&str>, body: &str) -> Response<Body> {
        self.send(Method::POST, who, id, body).await
    }

    /// Sends a request in the background: the status of the answer, and the session id if it
    /// carries one.
    pub(crate) fn status_in_background(
        &self,
        who: &str,
        id: Option<&str>,
        method: &str,
    ) -> InBackground<(u16, Option<String>)> {
        self.status_of(self.request(Method::POST, who, id, &rpc("7", method)))
    }

    /// As [`Harness::status_in_background`], of a call without a session id.
    pub(crate) fn status_of_routed(&self, who: &str, route: &str) -> InBackground<(u16, Option<String>)> {
        self.status_of(self.routed(Method::POST, who, route, &rpc("7", "ping")))
    }

    /// Sends a request in the background, as [`Harness::status_in_background`].
    pub(crate) fn status_of(&self, request: Request<Bytes>) -> InBackground<(u16, Option<String>)> {
        let registry = Arc::clone(&self.registry);
        in_background(async move {
            let response = registry.serve(request).await.response;
            (response.status().as_u16(), session_id(&response))
        })
    }

    /// Opens a listening stream.
    pub(crate) async fn listen(&self, who: &str, id: &str) -> Response<Body> {
        self.send(Method::GET, who, Some(id), "").await
    }

    pub(crate) async fn delete(&self, who: &str, id: &str) -> StatusCode {
        self.send(Method::DELETE, who, Some(id), "").await.status()
    }

    /// The status and the body of the answer to a POST.
    pub(crate) async fn exchange(&self, who: &str, id: Option<&str>, body: &str) -> (u16, String) {
        status_and_text(self.post(who, id, body).await).await
    }

    /// The answer to `initialize` without a session id.
    pub(crate) async fn initialize(&self, who: &str) -> Response<Body> {
        self.post(who, None, &rpc("1", "initialize")).await
    }

    /// Opens a session with the whole handshake and returns its id.
    pub(crate) async fn open(&self, who: &str) -> String {
        self.complete_handshake(who, self.initialize(who).await).await
    }

    /// Opens a session whose spawn the test resolves.
    pub(crate) async fn open_manually(&self, who: &str) -> String {
        let initialize = self.initialize_in_background(who);
        run_ready_tasks().await;
        assert!(self.spawner.resolve_last(SpawnOutcome::Ready));
        self.complete_handshake(who, initialize.output().await).await
    }

    async fn complete_handshake(&self, who: &str, initialized: Response<Body>) -> String {
        assert_eq!(initialized.status(), StatusCode::OK);
        let id = session_id(&initialized).expect("a session id");
        drop(body_text(initialized).await);
        drop(self.post(who, Some(&id), INITIALIZED).await);
        id
    }

    /// The status and the body of the answer to a ping with the id 77.
    pub(crate) async fn ping(&self, who: &str, id: &str) -> (u16, String) {
        self.exchange(who, Some(id), &rpc("77", "ping")).await
    }

    /// Asserts that the backend answers a ping.
    pub(crate) async fn must_answer(&self, who: &str, id: &str) {
        let (status, body) = self.ping(who, id).await;
        assert_eq!(
            (status, body.as_str()),
            (200, r#"{"jsonrpc":"2.0","id":77,"result":{}}"#)
        );
    }

    /// Asserts the status of a ping and that the answer carries the id of the request.
    pub(crate) async fn must_be(&self, status: u16, who: &str, id: &str) {
        let (actual, body) = self.ping(who, id).await;
        assert_eq!(actual, status, "{body}");
        assert!(body.contains(r#""id":77"#), "{body}");
    }

    /// As [`Harness::initialize_in_background`], with what else the registry says.
    pub(crate) fn serve_initialize_in_background(&self, who: &str) -> InBackground<Served> {
        let (registry, request) = (
            Arc::clone(&self.registry),
            self.request(Method::POST, who, None, &rpc("1", "initialize")),
        );
        in_background(async move { registry.serve(request).await })
    }

    pub(crate) fn initialize_in_background(&self, who: &str) -> InBackground<Response<Body>> {
        self.post_in_background(who, None, &rpc("1", "initialize"))
    }

    pub(crate) fn post_in_background(&self, who: &str, id: Option<&str>, body: &str) -> InBackground<Response<Body>> {
        let (registry, request) = (Arc::clone(&self.registry), self.request(Method::POST, who, id, body));
        in_background(async move { registry.serve(request).await.response })
    }

    pub(crate) fn exchange_in_background(
        &self,
        who: &str,
        id: Option<&str>,
        body: &str,
    ) -> InBackground<(u16, String)> {
        let (registry, request) = (Arc::clone(&self.registry), self.request(Method::POST, who, id, body));
        in_background(async move { status_and_text(registry.serve(request).await.response).await })
    }

    pub(crate) fn ping_in_background(&self, who: &str, id: &str) -> InBackground<(u16, String)> {
        self.exchange_in_background(who, Some(id), &rpc("77", "ping"))
    }

    /// The events since the last call.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.events.0))
    }

    /// The number of such events since the last [`Harness::take_events`].
    pub(crate) fn event_count(&self, event: Event) -> usize {
        lock(&self.events.0).iter().filter(|other| **other == event).count()
    }
}

impl Host for RoutedPassThrough {
    fn conversation(
        &self,
        info: ConversationInfo,
        handle: SessionHandle,
        snapshot: Option<Snapshot>,
    ) -> Result<Arc<dyn Conversation>, BoxError> {
        self.0.conversation(info, handle, snapshot)
    }

    fn renews_credentials(&self) -> bool {
        self.0.renews_credentials()
    }

    fn route(&self, request: &mut Request<Bytes>, _caller: &Caller) -> Route {
        route_by_header(request)
    }

    fn initial_snapshot(&self, request: &Request<Bytes>) -> Option<Snapshot> {
        initial_snapshot_by_header(request)
    }
}

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) + self.0.elapsed()
    }
}

impl Observer for RecordedEvents {
    fn on(&self, event: Event) {
        lock(&self.0).push(event);
    }
}

impl<T: Send + 'static> InBackground<T> {
    /// Waits for the task.
    pub(crate) async fn output(mut self) -> T {
        self.0.join_next().await.expect("a task").expect("no panic")
    }

    /// The output, if the task has ended. It is returned once.
    pub(crate) fn try_output(&mut self) -> Option<T> {
        Some(self.0.try_join_next()?.expect("no panic"))
    }
}

pub(crate) fn in_background<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> InBackground<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    InBackground(tasks)
}

/// Lets every task run until it waits. No time passes.
pub(crate) async fn run_ready_tasks() {
    for _ in 0..24 {
        tokio::task::yield_now().await;
    }
}

/// A random element.
pub(crate) fn pick<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// Sessions outlive their backends.
pub(crate) fn durable() -> Config {
    Config {
        retain: RETAIN,
        ..Config::default()
    }
}

pub(crate) fn rpc(id: &str, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

pub(crate) fn session_id(response: &Response<Body>) -> Option<String> {
    let id = response.headers().get("mcp-session-id")?;
    Some(id.to_str().expect("text").to_owned())
}

pub(crate) async fn body_text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.into()).expect("UTF-8")
}

async fn status_and_text(response: Response<Body>) -> (u16, String) {
    (response.status().as_u16(), body_text(response).await)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds a lock")
}
