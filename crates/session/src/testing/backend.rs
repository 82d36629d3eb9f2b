//! A backend that records its requests and answers each by its method.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{
    BodyExt, Full,
    channel::{Channel, Sender},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{SpawnOutcome, lock, scheduling_point};
use crate::ports::{Backend, Body, BoxError, BoxFuture, Reply, Snapshot};

/// The delay of a late event stream ([`SpawnOutcome::StreamsInitializeLate`]).
pub const LATE_STREAM_DELAY: Duration = Duration::from_secs(1);

/// A backend of a [`ScriptedSpawner`](super::ScriptedSpawner).
///
/// The method of a request selects the answer:
///
/// | request | answer |
/// |---|---|
/// | `GET`, method `stream` | an event stream, open until [`ScriptedBackend::close_streams`] or the death of the backend |
/// | `initialize` | as the [`SpawnOutcome`] says |
/// | `slow` | an empty result, after [`ScriptedBackend::answer_slow`] |
/// | `busy` | 429 |
/// | `dies` | the backend dies, and the answer is an error |
/// | `notifications/...` | 202 |
/// | any other | an empty result |
///
/// Its snapshot names the messages of the handshake: `<initialize><notifications/initialized>`.
#[derive(Debug)]
pub struct ScriptedBackend {
    tag: Arc<str>,
    outcome: SpawnOutcome,
    expires_at: Option<SystemTime>,
    /// Set for benchmarks: nothing is recorded, and this is the snapshot.
    unrecorded: Option<Bytes>,
    stops_held: watch::Receiver<bool>,
    done: CancellationToken,
    crashed: AtomicBool,
    output_closed: AtomicBool,
    stops: AtomicUsize,
    requests: Mutex<Vec<Request<Bytes>>>,
    slow: Mutex<Vec<oneshot::Sender<()>>>,
    streams: Mutex<Vec<Sender<Bytes, BoxError>>>,
    /// The messages of the handshake, from the client or from the snapshot.
    handshake: Mutex<String>,
}

impl ScriptedBackend {
    pub(super) fn new(
        tag: Arc<str>,
        outcome: SpawnOutcome,
        snapshot: Option<Snapshot>,
        expires_at: Option<SystemTime>,
        unrecorded: Option<Bytes>,
        stops_held: watch::Receiver<bool>,
    ) -> Self {
        let handshake = snapshot.map(|snapshot| String::from_utf8_lossy(&snapshot.0).into_owned());
        Self {
            tag,
            outcome,
            expires_at,
            unrecorded,
            stops_held,
            done: CancellationToken::new(),
            crashed: AtomicBool::new(false),
            output_closed: AtomicBool::new(false),
            stops: AtomicUsize::new(0),
            requests: Mutex::default(),
            slow: Mutex::default(),
            streams: Mutex::default(),
            handshake: Mutex::new(handshake.unwrap_or_default()),
        }
    }

    /// The tag of the backend's session.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Dies, as a process that exits by itself: [`Backend::done`] is cancelled and all streams end.
    pub fn die(&self) {
        lock(&self.streams).clear();
        self.done.cancel();
    }

    /// Dies, but shows it only at the next request, which it answers as unread ([`Reply::Gone`]).
    pub fn die_unnoticed(&self) {
        self.crashed.store(true, Ordering::SeqCst);
    }

    /// Closes the output of a backend that lives on: [`Backend::is_gone`] is true,
    /// [`Backend::done`] is not cancelled.
    pub fn close_output(&self) {
        self.output_closed.store(true, Ordering::SeqCst);
    }

    /// Returns true after the backend has died or was stopped.
    pub fn has_exited(&self) -> bool {
        self.done.is_cancelled()
    }

    /// The number of calls of [`Backend::stop`].
    pub fn stop_count(&self) -> usize {
        self.stops.load(Ordering::SeqCst)
    }

    /// All requests without their extensions, the oldest first.
    pub fn requests(&self) -> Vec<Request<Bytes>> {
        lock(&self.requests).clone()
    }

    /// Answers the oldest pending `slow` request. False if its client no longer waits.
    ///
    /// # Panics
    ///
    /// If no such request is pending.
    pub fn answer_slow(&self) -> bool {
        lock(&self.slow).remove(0).send(()).is_ok()
    }

    /// The number of event streams that were not ended here.
    pub fn stream_count(&self) -> usize {
        lock(&self.streams).len()
    }

    /// Ends all event streams.
    pub fn close_streams(&self) {
        lock(&self.streams).clear();
    }

    async fn answer(&self, mut request: Request<Bytes>) -> Reply {
        if self.unrecorded.is_some() {
            let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
            return response(StatusCode::OK, body).into();
        }
        scheduling_point().await;
        request.extensions_mut().clear();
        lock(&self.requests).push(request.clone());
        if request.method() == Method::GET {
            return self.stream().into();
        }
        let message: serde_json::Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let (id, method) = (&message["id"], message["method"].as_str().unwrap_or_default());
        let crashed = self.crashed.load(Ordering::SeqCst);
        if method == "dies" || crashed || (method == "initialize" && self.outcome == SpawnOutcome::DiesAtInitialize) {
            self.die();
        }
        let result = || ok(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        let error = || {
            let error = r#"{"code":-32000,"message":"gone"}"#;
            ok(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
        };
        if self.has_exited() {
            return Reply::Gone {
                response: error(),
                unread: crashed,
            };
        }
        if matches!(method, "initialize" | "notifications/initialized") {
            let mut handshake = lock(&self.handshake);
            if !handshake.contains(method) {
                handshake.push_str(&format!("<{method}>"));
            }
        }
        let response = match (method, self.outcome) {
            _ if method.starts_with("notifications/") => response(StatusCode::ACCEPTED, Bytes::new()),
            ("busy", _) => response(StatusCode::TOO_MANY_REQUESTS, Bytes::from_static(b"{}")),
            ("initialize", SpawnOutcome::RefusesInitialize) => error(),
            ("initialize", SpawnOutcome::StreamsInitialize) | ("stream", _) => self.stream(),
            ("initialize", SpawnOutcome::StreamsInitializeLate) => {
                tokio::time::sleep(LATE_STREAM_DELAY).await;
                self.stream()
            }
            ("initialize", SpawnOutcome::IgnoresInitialize) => {
                self.done.cancelled().await;
                error()
            }
            ("slow", _) => {
                let (answer, answered) = oneshot::channel();
                lock(&self.slow).push(answer);
                tokio::select! {
                    biased;
                    _ = answered => result(),
                    () = self.done.cancelled() => error(),
                }
            }
            _ => result(),
        };
        response.into()
    }

    fn stream(&self) -> Response<Body> {
        let (sender, body) = Channel::new(8);
        lock(&self.streams).push(sender);
        let mut response = Response::new(body.boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        // The registry must not pass the id of a backend on.
        headers.insert("mcp-session-id", HeaderValue::from_static("not-the-id"));
        response
    }
}

impl Backend for ScriptedBackend {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Reply> {
        Box::pin(self.answer(request))
    }

    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stops.fetch_add(1, Ordering::SeqCst);
            scheduling_point().await;
            let mut held = self.stops_held.clone();
            tokio::select! {
                biased;
                // An error means that the spawner was dropped, and the hold with it.
                _ = held.wait_for(|held| !held) => {}
                () = self.done.cancelled() => {}
            }
            self.die();
        })
    }

    fn is_gone(&self) -> bool {
        self.has_exited() || self.output_closed.load(Ordering::SeqCst)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        if let Some(snapshot) = &self.unrecorded {
            return Some(Snapshot(Bytes::copy_from_slice(snapshot)));
        }
        let handshake = lock(&self.handshake);
        (!handshake.is_empty()).then(|| Snapshot(handshake.clone().into()))
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

fn ok(body: &str) -> Response<Body> {
    response(StatusCode::OK, Bytes::copy_from_slice(body.as_bytes()))
}

pub(super) fn response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
