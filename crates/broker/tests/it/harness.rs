//! A broker on a loopback port, the scripted services behind it, and clients.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::{
    Broker, BrokerError, BuildInfo, Config, PublicUrl,
    ports::{Authority, BoxFuture, GrantKey, McpAnswer, McpService, PortError, Probe, ResponseBody},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::{
    BodyExt, Full,
    channel::{Channel, Sender},
};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Maximum time to wait for any event.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The calls of the test doubles, in order.
#[derive(Debug, Default)]
pub(crate) struct CallLog(Mutex<Vec<String>>);

/// Accepts only the bearer tokens `good` and `other`, of two grants.
#[derive(Debug)]
struct TwoTokensAuthority(Arc<CallLog>);

/// Behaves as the body of the request says.
#[derive(Debug)]
pub(crate) struct ScriptedMcp {
    calls: Arc<CallLog>,
    /// Notified when a `slow` request or a stream has begun.
    pub(crate) begun: Notify,
    /// Lets `slow` requests finish.
    pub(crate) release: watch::Sender<bool>,
    streams: Mutex<Vec<Sender<Bytes, PortError>>>,
}

/// A probe that succeeds while the value is true.
#[derive(Debug)]
pub(crate) struct Switch(pub(crate) watch::Sender<bool>, &'static str);

pub(crate) struct Harness {
    pub(crate) addr: SocketAddr,
    pub(crate) calls: Arc<CallLog>,
    pub(crate) mcp: Arc<ScriptedMcp>,
    /// Readiness depends on it and on the next one.
    pub(crate) store: Arc<Switch>,
    pub(crate) program: Arc<Switch>,
    pub(crate) shutdown: CancellationToken,
    server: JoinSet<Result<(), BrokerError>>,
}

/// A complete response.
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

pub(crate) fn config(public_url: &str) -> Config {
    let build = BuildInfo {
        version: "1.2.3".into(),
        revision: "abc".into(),
    };
    Config::new(PublicUrl::parse(public_url).expect("a URL"), build)
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(config("https://mcp.example")).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::with_change(config, |broker| broker).await
    }

    /// Starts with a broker that `change` has changed.
    pub(crate) async fn with_change(config: Config, change: impl FnOnce(Broker) -> Broker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let calls = Arc::new(CallLog::default());
        let mcp = Arc::new(ScriptedMcp {
            calls: Arc::clone(&calls),
            begun: Notify::new(),
            release: watch::Sender::new(false),
            streams: Mutex::default(),
        });
        let [store, program] = ["store", "program"].map(|name| Arc::new(Switch(watch::Sender::new(true), name)));
        let authority = Arc::new(TwoTokensAuthority(Arc::clone(&calls)));
        let probes: Vec<Arc<dyn Probe>> = vec![Arc::clone(&store) as _, Arc::clone(&program) as _];
        let broker = Broker::new(config, authority, Arc::clone(&mcp) as _);
        let broker = change(broker.with_readiness_probes(probes));
        let shutdown = CancellationToken::new();
        let mut server = JoinSet::new();
        let stop = shutdown.clone();
        server.spawn(async move { broker.serve(listener, stop).await });
        Self {
            addr,
            calls,
            mcp,
            store,
            program,
            shutdown,
            server,
        }
    }

    /// Waits until the broker has stopped.
    pub(crate) async fn ended(&mut self) {
        let ended = timeout(TIMEOUT, self.server.join_next()).await.expect("an end in time");
        ended.expect("a server").expect("no panic").expect("no error");
    }

    /// Sends a request over a new connection.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Received {
        Received::of(self.answer(request).await).await
    }

    /// As [`send`](Self::send), but returns before the body.
    pub(crate) async fn answer(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.addr).await.expect("a connection");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("HTTP/1.1");
        let driver = tokio_util::task::TaskTracker::new();
        driver.spawn(connection);
        timeout(TIMEOUT, sender.send_request(request))
            .await
            .expect("an answer")
            .expect("an answer")
    }

    /// Sends a request over HTTP/2.
    pub(crate) async fn send_h2(&self, request: Request<Full<Bytes>>) -> Received {
        let mut sender = self.h2().await;
        let answer = timeout(TIMEOUT, sender.send_request(request)).await;
        Received::of(answer.expect("an answer in time").expect("an answer")).await
    }

    pub(crate) async fn h2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.addr).await.expect("a connection");
        let io = TokioIo::new(stream);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (sender, connection) = handshake.await.expect("HTTP/2");
        let driver = tokio_util::task::TaskTracker::new();
        driver.spawn(connection);
        sender
    }

    pub(crate) async fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.expect("a connection");
        stream.write_all(bytes).await.expect("a write");
        stream
    }
}

impl Received {
    pub(crate) async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = timeout(TIMEOUT, body.collect()).await.expect("an end").expect("a body");
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_bytes().into()).expect("UTF-8"),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().expect("text"))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// A POST to `/mcp` that passes every check.
pub(crate) fn valid_post(body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method("POST")
        .uri("/mcp")
        .header("host", "mcp.example")
        .header("authorization", "Bearer good")
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .expect("a request")
}

/// A GET without a body.
pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().uri(path).header("host", "mcp.example");
    request.body(Full::default()).expect("a request")
}

/// Reads until the broker closes the connection.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset counts as a close.
    let read = timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await;
    drop(read.expect("the connection is closed in time"));
    String::from_utf8_lossy(&bytes).into_owned()
}

impl CallLog {
    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.lock().expect("a lock").clone()
    }

    fn record(&self, entry: String) {
        self.0.lock().expect("a lock").push(entry);
    }
}

impl Authority for TwoTokensAuthority {
    fn authenticate<'a>(
        &'a self,
        parts: &'a mut request::Parts,
    ) -> BoxFuture<'a, Result<GrantKey, Response<ResponseBody>>> {
        Box::pin(async {
            self.0.record("authenticate".into());
            let bearer = parts.headers.get(header::AUTHORIZATION);
            let grant = match bearer.map(HeaderValue::as_bytes) {
                Some(b"Bearer good") => Some("a grant"),
                Some(b"Bearer other") => Some("another grant"),
                _ => None,
            };
            if let Some(grant) = grant {
                parts.extensions.insert("the caller");
                return Ok(GrantKey(grant.into()));
            }
            let mut response = answer(StatusCode::UNAUTHORIZED, "who?");
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            Err(response)
        })
    }

    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(async move {
            let response = format!("{} {} {}", request.method(), request.uri(), request.body().len());
            self.0.record(response.clone());
            answer(StatusCode::OK, &response)
        })
    }
}

impl McpService for ScriptedMcp {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, McpAnswer> {
        Box::pin(async move {
            let caller = request.extensions().get::<&str>().copied().unwrap_or("no caller");
            let response = format!(
                "{} {} {} from {caller}",
                request.method(),
                request.uri(),
                request.body().len()
            );
            self.calls.record(response.clone());
            if request.method() == http::Method::GET {
                return self.stream().into();
            }
            match &request.body()[..] {
                b"slow" => {
                    self.begun.notify_one();
                    let mut release = self.release.subscribe();
                    release
                        .wait_for(|go| *go)
                        .await
                        .expect("the double outlives its requests");
                }
                b"stream" => return self.stream().into(),
                b"panic" => panic!("as the test says"),
                _ => {}
            }
            answer(StatusCode::OK, &response).into()
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.calls.record("drain".into());
            self.streams.lock().expect("a lock").clear();
        })
    }
}

impl ScriptedMcp {
    fn stream(&self) -> Response<ResponseBody> {
        let (sender, body) = Channel::new(1);
        self.streams.lock().expect("a lock").push(sender);
        self.begun.notify_one();
        let mut response = Response::new(body.boxed_unsync());
        let kind = header::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    pub(crate) fn end_streams(&self) {
        self.streams.lock().expect("a lock").clear();
    }
}

impl Probe for Switch {
    fn name(&self) -> &'static str {
        self.1
    }

    fn check(&self) -> BoxFuture<'_, Result<(), PortError>> {
        let works = *self.0.borrow();
        Box::pin(async move { if works { Ok(()) } else { Err("SECRET-REASON".into()) } })
    }
}

fn answer(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let body = Full::from(text.to_owned()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
