//! A spawner and backends that do as they are told and remember what they were asked.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{
    BodyExt, Full,
    channel::{Channel, Sender},
};
use secrecy::{ExposeSecret, SecretString};
use session::{
    Config, Registry,
    ports::{
        Backend, BackendGone, Body, BoxError, BoxFuture, Caller, ClientId, Credential, CredentialError, Credentials,
        GrantId, NotProcessed, Snapshot, SpawnError, SpawnOrder, Spawner, UserId,
    },
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How a spawn comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    /// A backend that answers `initialize` with an error.
    RefusesInitialize,
    /// A backend that answers `initialize` with a stream.
    StreamsInitialize,
    /// A backend that answers `initialize` with a stream after [`STREAMED_AFTER`].
    StreamsInitializeLate,
    /// A backend that never answers `initialize`.
    SilentInitialize,
    /// A backend that dies of `initialize`.
    DiesAtInitialize,
    Credentials,
    Unavailable,
    Failed,
    NotReady,
}

#[derive(Debug)]
pub(crate) struct ScriptedSpawner {
    /// What a spawn does by itself; without it, it waits for [`ScriptedSpawner::decide`].
    default: Option<Outcome>,
    /// Backends whose stop waits until this is false.
    pub(crate) hold_stops: watch::Sender<bool>,
    /// Whether its backends renew credentials themselves.
    pub(crate) renews: AtomicBool,
    waiting: Mutex<Vec<Waiting>>,
    pub(crate) orders: Mutex<Vec<SpawnOrder>>,
    pub(crate) backends: Mutex<Vec<Arc<RecordingBackend>>>,
    pub(crate) running: Arc<Running>,
}

/// How many backends run, and how many ran at most.
#[derive(Debug, Default)]
pub(crate) struct Running {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    tag: Arc<str>,
    decide: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
pub(crate) struct RecordingBackend {
    pub(crate) tag: Arc<str>,
    outcome: Outcome,
    done: CancellationToken,
    deaf: AtomicBool,
    ended_output: AtomicBool,
    pub(crate) stops: AtomicUsize,
    hold_stops: watch::Receiver<bool>,
    pub(crate) seen: Mutex<Vec<(Method, HeaderMap, Bytes)>>,
    slow: Mutex<Vec<oneshot::Sender<()>>>,
    pub(crate) streams: Mutex<Vec<Sender<Bytes, BoxError>>>,
    running: Arc<Running>,
    /// What it was told of the handshake, by its client or by a snapshot.
    handshake: Mutex<String>,
    expires_at: Option<SystemTime>,
}

impl ScriptedSpawner {
    pub(crate) fn immediate(outcome: Outcome) -> Arc<Self> {
        Self::new(Some(outcome))
    }

    pub(crate) fn gated() -> Arc<Self> {
        Self::new(None)
    }

    fn new(default: Option<Outcome>) -> Arc<Self> {
        Arc::new(Self {
            default,
            hold_stops: watch::Sender::new(false),
            renews: AtomicBool::new(false),
            waiting: Mutex::default(),
            orders: Mutex::default(),
            backends: Mutex::default(),
            running: Arc::default(),
        })
    }

    /// Lets the spawn for the session `tag` come out; false if nobody waits for it any more.
    pub(crate) fn decide(&self, tag: &str, outcome: Outcome) -> bool {
        let mut waiting = lock(&self.waiting);
        let index = waiting
            .iter()
            .rposition(|w| &*w.tag == tag)
            .expect("a spawn of this tag");
        waiting.remove(index).decide.send(outcome).is_ok()
    }

    pub(crate) fn orders(&self) -> usize {
        lock(&self.orders).len()
    }

    pub(crate) fn last_tag(&self) -> Arc<str> {
        Arc::clone(&lock(&self.orders).last().expect("an order").tag)
    }

    /// The sessions that a spawn waits for, once for each spawn.
    pub(crate) fn waiting(&self) -> Vec<Arc<str>> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|w| !w.decide.is_closed());
        waiting.iter().map(|w| Arc::clone(&w.tag)).collect()
    }

    pub(crate) fn backend(&self, tag: &str) -> Arc<RecordingBackend> {
        let backends = lock(&self.backends);
        Arc::clone(
            backends
                .iter()
                .rfind(|b| &*b.tag == tag)
                .expect("a backend of this tag"),
        )
    }

    pub(crate) fn last(&self) -> Arc<RecordingBackend> {
        Arc::clone(lock(&self.backends).last().expect("a backend"))
    }

    fn make(
        &self,
        tag: Arc<str>,
        outcome: Outcome,
        snapshot: Option<Snapshot>,
        expires_at: Option<SystemTime>,
    ) -> Result<Arc<dyn Backend>, SpawnError> {
        let cause = || BoxError::from("SECRET-REASON");
        match outcome {
            Outcome::Credentials => return Err(SpawnError::Credentials(cause())),
            Outcome::Unavailable => return Err(SpawnError::Unavailable(cause())),
            Outcome::Failed => return Err(SpawnError::Failed(cause())),
            Outcome::NotReady => return Err(SpawnError::NotReady(cause())),
            Outcome::Good
            | Outcome::RefusesInitialize
            | Outcome::StreamsInitialize
            | Outcome::StreamsInitializeLate
            | Outcome::SilentInitialize
            | Outcome::DiesAtInitialize => {}
        }
        self.running.up();
        let backend = Arc::new(RecordingBackend {
            tag,
            outcome,
            done: CancellationToken::new(),
            deaf: AtomicBool::new(false),
            ended_output: AtomicBool::new(false),
            stops: AtomicUsize::new(0),
            hold_stops: self.hold_stops.subscribe(),
            seen: Mutex::default(),
            slow: Mutex::default(),
            streams: Mutex::default(),
            running: Arc::clone(&self.running),
            handshake: Mutex::new(snapshot.map_or_else(String::new, |snapshot| {
                String::from_utf8(snapshot.0.into()).expect("text")
            })),
            expires_at,
        });
        lock(&self.backends).push(Arc::clone(&backend));
        Ok(backend)
    }
}

impl Spawner for ScriptedSpawner {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(async move {
            let tag = Arc::clone(&order.tag);
            let (snapshot, credentials) = (order.snapshot.clone(), Arc::clone(&order.caller.credentials));
            lock(&self.orders).push(order);
            let outcome = match self.default {
                Some(outcome) => outcome,
                None => {
                    let (decide, decided) = oneshot::channel();
                    lock(&self.waiting).push(Waiting {
                        tag: Arc::clone(&tag),
                        decide,
                    });
                    decided.await.expect("the spawner outlives the spawn")
                }
            };
            let credential = credentials.current().await.map_err(|error| match error {
                CredentialError::Terminal(error) => SpawnError::Credentials(error),
                CredentialError::Transient(error) => SpawnError::Unavailable(error),
            })?;
            // Upstream refuses it: a server that asks at its start does not live long.
            let outcome = match credential.access_token.expose_secret() {
                TAKEN_BACK if snapshot.is_some() => Outcome::Failed,
                TAKEN_BACK => Outcome::DiesAtInitialize,
                _ => outcome,
            };
            let expires_at = (credential.expires_at < far()).then_some(credential.expires_at);
            self.make(tag, outcome, snapshot, expires_at)
        })
    }

    fn renews_credentials(&self) -> bool {
        self.renews.load(Ordering::SeqCst)
    }
}

impl Running {
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn up(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }
}

impl RecordingBackend {
    /// Reads nothing any more: it has died, which shows when it is asked.
    pub(crate) fn deafen(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// Lives on, of no use to anyone.
    pub(crate) fn end_output(&self) {
        self.ended_output.store(true, Ordering::SeqCst);
    }

    /// Dies by itself.
    pub(crate) fn die(&self) {
        if !self.done.is_cancelled() {
            self.running.now.fetch_sub(1, Ordering::SeqCst);
            lock(&self.streams).clear();
            self.done.cancel();
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.done.is_cancelled()
    }

    /// Answers the oldest `slow` request that waits; false if nobody waits for it any more.
    pub(crate) fn answer_slow(&self) -> bool {
        lock(&self.slow).remove(0).send(()).is_ok()
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        lock(&self.seen).push((parts.method.clone(), parts.headers, body.clone()));
        if parts.method == Method::GET {
            return self.stream();
        }
        let message: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let (id, method) = (&message["id"], message["method"].as_str().unwrap_or_default());
        let deaf = self.deaf.load(Ordering::SeqCst);
        if method == "dies" || deaf || (method == "initialize" && self.outcome == Outcome::DiesAtInitialize) {
            self.die();
        }
        if self.is_gone() {
            let error = r#"{"code":-32000,"message":"gone"}"#;
            let mut response = json(
                StatusCode::OK,
                &format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#),
            );
            response.extensions_mut().insert(BackendGone);
            if deaf {
                response.extensions_mut().insert(NotProcessed);
            }
            return response;
        }
        if matches!(method, "initialize" | "notifications/initialized") {
            let mut handshake = lock(&self.handshake);
            if !handshake.contains(method) {
                handshake.push_str(&format!("<{method}>"));
            }
        }
        let good = json(
            StatusCode::OK,
            &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#),
        );
        let bad = || {
            let error = r#"{"code":-32000,"message":"gone"}"#;
            json(
                StatusCode::OK,
                &format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#),
            )
        };
        match (method, self.outcome) {
            _ if method.starts_with("notifications/") => json(StatusCode::ACCEPTED, ""),
            ("busy", _) => json(StatusCode::TOO_MANY_REQUESTS, "{}"),
            ("initialize", Outcome::RefusesInitialize) => bad(),
            ("initialize", Outcome::StreamsInitialize) | ("stream", _) => self.stream(),
            ("initialize", Outcome::StreamsInitializeLate) => {
                tokio::time::sleep(STREAMED_AFTER).await;
                self.stream()
            }
            ("initialize", Outcome::SilentInitialize) => {
                self.done.cancelled().await;
                bad()
            }
            ("slow", _) => {
                let (answer, answered) = oneshot::channel();
                lock(&self.slow).push(answer);
                tokio::select! {
                    _ = answered => good,
                    () = self.done.cancelled() => bad(),
                }
            }
            _ => good,
        }
    }

    fn stream(&self) -> Response<Body> {
        let (sender, body) = Channel::new(8);
        lock(&self.streams).push(sender);
        let mut response = Response::new(body.boxed_unsync());
        let kind = header::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        // A backend has no say in the session id.
        let id = header::HeaderValue::from_static("not-the-id");
        response.headers_mut().insert("mcp-session-id", id);
        response
    }
}

impl Backend for RecordingBackend {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(self.answer(request))
    }

    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stops.fetch_add(1, Ordering::SeqCst);
            let mut hold = self.hold_stops.clone();
            tokio::select! {
                // An error says that the spawner is gone, and with it the hold.
                _ = hold.wait_for(|hold| !hold) => {}
                () = self.done.cancelled() => {}
            }
            self.die();
        })
    }

    fn is_gone(&self) -> bool {
        self.done.is_cancelled() || self.ended_output.load(Ordering::SeqCst)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let handshake = lock(&self.handshake);
        (!handshake.is_empty()).then(|| Snapshot(handshake.clone().into()))
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

/// When an answer that has not come yet becomes a stream.
pub(crate) const STREAMED_AFTER: Duration = Duration::from_secs(1);

/// A credential that looks good and that the upstream refuses.
pub(crate) const TAKEN_BACK: &str = "taken back";

/// A credential that never expires does so then.
fn far() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)
}

#[derive(Debug)]
struct NeverExpires;

impl Credentials for NeverExpires {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            Ok(Credential {
                access_token: SecretString::from("token"),
                expires_at: far(),
            })
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        // There is nothing to renew it from.
        Box::pin(async { Err(CredentialError::Transient("there is no other one".into())) })
    }
}

/// A grant of a user: `caller("ann/phone")`.
pub(crate) fn caller(name: &str) -> Arc<Caller> {
    let user = name.split('/').next().unwrap_or(name);
    Arc::new(Caller {
        grant: grant(name),
        user: UserId(user.into()),
        client: ClientId("a-client".into()),
        credentials: Arc::new(NeverExpires),
    })
}

pub(crate) fn grant(name: &str) -> GrantId {
    GrantId(name.into())
}

/// A request with a caller, and with a session id if there is one.
pub(crate) fn request(method: Method, who: &str, id: Option<&str>, body: &str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::copy_from_slice(body.as_bytes()));
    *request.method_mut() = method;
    if let Some(id) = id {
        request
            .headers_mut()
            .insert("mcp-session-id", id.parse().expect("a header value"));
    }
    request.extensions_mut().insert(caller(who));
    request
}

pub(crate) fn rpc(id: &str, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

/// Posts a message.
pub(crate) async fn post(reg: &Registry, who: &str, id: Option<&str>, body: &str) -> Response<Body> {
    reg.serve(request(Method::POST, who, id, body)).await
}

/// Opens a session and returns its id.
pub(crate) async fn open(reg: &Registry, who: &str) -> String {
    let response = post(reg, who, None, &rpc("1", "initialize")).await;
    assert_eq!(response.status(), StatusCode::OK);
    session_id(&response).expect("a session id")
}

pub(crate) fn session_id(response: &Response<Body>) -> Option<String> {
    Some(
        response
            .headers()
            .get("mcp-session-id")?
            .to_str()
            .expect("text")
            .to_owned(),
    )
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.into()).expect("UTF-8")
}

/// The status and the body of a POST.
pub(crate) async fn said(reg: &Registry, who: &str, id: Option<&str>, body: &str) -> (u16, String) {
    let response = post(reg, who, id, body).await;
    (response.status().as_u16(), text(response).await)
}

/// Lets every task run until it waits for something. Time stands still.
pub(crate) async fn settle() {
    for _ in 0..24 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn registry(spawner: &Arc<ScriptedSpawner>, config: Config) -> Arc<Registry> {
    let spawner: Arc<dyn Spawner> = Arc::clone(spawner) as _;
    Arc::new(Registry::new(config, spawner))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with a lock")
}

fn json(status: StatusCode, body: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
