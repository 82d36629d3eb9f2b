//! Streamable HTTP of `forgejo-mcp --transport http`: one process for all users, each request with
//! its own token.
//!
//! It checks neither token nor Origin, and any well-formed session id is valid. With
//! [`STRICT`](super::STRICT) it checks both. The answer to a request is JSON, or an event stream if
//! messages precede it; a GET receives the messages of its session that belong to no request. A
//! client that goes away ends its request, with a line on standard error.
//!
//! With [`ERA`](super::ERA) set to `modern` there are no sessions, and each request has to have the
//! headers that mirror it.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response, Sse, sse::Event},
    routing,
};
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    CallContext, Line, Options, QUEUED_LINES, WORKERS,
    api::Api,
    arguments::Era,
    inbox::Inbox,
    log,
    modern::{self, Listens},
    protocol::{self, Incoming, Request, RpcError},
};
use crate::http_server::HttpServer;

const BODY_LIMIT: usize = 8 << 20;
/// A well-formed session id is this and a UUID.
const SESSION_PREFIX: &str = "mcp-session-";
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

struct Shared {
    options: Arc<Options>,
    api: Arc<Api>,
    inbox: Arc<Inbox>,
    workers: Arc<Semaphore>,
    /// The sessions that were opened here and have not ended, each with the sender to its GET
    /// stream. Every change is one operation, so a poisoned lock is still consistent; never held
    /// across an await.
    sessions: Mutex<HashMap<String, Option<mpsc::Sender<Line>>>>,
    /// Of a server of the modern era.
    listens: Option<Arc<Listens>>,
}

/// Writes to standard error if it is dropped before the request has its answer.
struct PendingGuard<'a> {
    method: &'a str,
    answered: bool,
}

/// Serves until `terminate` fires; returns the exit code.
pub(super) async fn serve(options: Arc<Options>, api: Arc<Api>, port: u16, terminate: &CancellationToken) -> u8 {
    let url = options.url.clone();
    let shared = Arc::new(Shared {
        listens: (options.era == Era::Modern).then(Arc::default),
        options,
        api,
        inbox: Arc::default(),
        workers: Arc::new(Semaphore::new(WORKERS)),
        sessions: Mutex::default(),
    });
    let route = match &shared.listens {
        Some(_) => routing::post(post_modern),
        None => routing::get(listen).post(post).delete(delete),
    };
    let router = Router::new()
        .route("/mcp", route)
        .route_layer(from_fn_with_state(Arc::clone(&shared), check_token))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"))
        .fallback(async || (StatusCode::NOT_FOUND, "404 page not found"))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared);
    let _server = match HttpServer::start(port, router).await {
        Ok(server) => server,
        Err(error) => {
            log::error("cannot listen", &error.to_string());
            return 1;
        }
    };
    log::info("serving on http", &format!("url={url} port={port}"));
    terminate.cancelled().await;
    0
}

async fn check_token(State(shared): State<Arc<Shared>>, request: axum::extract::Request, next: Next) -> Response {
    if shared.options.strict.is_some() {
        let token = token(request.headers());
        if token.is_none() || shared.api.with_token(token).user().await.is_err() {
            return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
        }
    }
    next.run(request).await
}

async fn listen(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(session) = shared.session(&headers) else {
        return shared.unknown_session();
    };
    let (sender, rest) = mpsc::channel(QUEUED_LINES);
    // A second GET stream replaces the first.
    shared.sessions().insert(session.to_owned(), Some(sender));
    log::info("listening", "");
    events(None, rest, JoinSet::new())
}

async fn delete(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(session) = shared.session(&headers) else {
        return shared.unknown_session();
    };
    shared.sessions().remove(session);
    log::info("session ended", "");
    StatusCode::OK.into_response()
}

async fn post(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let session = shared.session(&headers);
    let request = match Incoming::read(&body) {
        Incoming::Request(request) => request,
        Incoming::Other(_) if session.is_none() => return shared.unknown_session(),
        Incoming::Other(message) => {
            if shared.options.test_tools {
                shared.inbox.add(&message);
            }
            log::info("message accepted", "");
            return (StatusCode::ACCEPTED, "").into_response();
        }
        Incoming::Invalid { id, error } => {
            return json(StatusCode::BAD_REQUEST, protocol::response(&id, Err(error)));
        }
    };
    let opened = (request.method == "initialize").then(|| shared.open());
    let Some(session) = opened.as_deref().or(session) else {
        return shared.unknown_session();
    };
    let listener = shared.sessions().get(session).cloned().flatten();
    let mut response = shared.answer(&headers, request, listener).await;
    if let Some(id) = opened.and_then(|id| HeaderValue::try_from(id).ok()) {
        response.headers_mut().insert(SESSION_ID, id);
    }
    response
}

async fn post_modern(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match Incoming::read(&body) {
        Incoming::Request(request) => request,
        Incoming::Other(_) => return (StatusCode::ACCEPTED, "").into_response(),
        Incoming::Invalid { id, error } => {
            return json(StatusCode::BAD_REQUEST, protocol::response(&id, Err(error)));
        }
    };
    if let Some(header) = modern::differing_header(&headers, &request) {
        let error = RpcError::new(modern::HEADER_MISMATCH, format!("the header {header} differs"));
        return json(StatusCode::BAD_REQUEST, protocol::response(&request.id, Err(error)));
    }
    log::info("request", &format!("method={}", request.method));
    shared.answer(&headers, request, None).await
}

impl Shared {
    /// Serves a request, with the sender to the GET stream of its session.
    async fn answer(&self, headers: &HeaderMap, request: Request, listener: Option<mpsc::Sender<Line>>) -> Response {
        let (stream, mut lines) = mpsc::channel(QUEUED_LINES);
        let context = CallContext {
            options: Arc::clone(&self.options),
            api: Arc::new(self.api.with_token(token(headers))),
            inbox: Arc::clone(&self.inbox),
            workers: Arc::clone(&self.workers),
            listener: listener.unwrap_or_else(|| stream.clone()),
            stream,
            listens: self.listens.clone(),
            answers: None,
        };
        let mut producer = JoinSet::new();
        producer.spawn(async move {
            let mut guard = PendingGuard {
                method: &request.method,
                answered: false,
            };
            context.serve(&request).await;
            guard.answered = true;
        });
        let Some(first) = lines.recv().await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        if !is_response(&first) {
            return events(Some(first), lines, producer);
        }
        let status = self.listens.as_ref().map_or(StatusCode::OK, |_| modern::status(&first));
        json(status, first)
    }

    fn open(&self) -> String {
        let id = format!("{SESSION_PREFIX}{}", Uuid::new_v4());
        self.sessions().insert(id.clone(), None);
        log::info("session opened", "");
        id
    }

    fn session<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let id = headers.get(SESSION_ID)?.to_str().ok()?;
        let is_valid = if self.options.strict.is_some() {
            self.sessions().contains_key(id)
        } else {
            let uuid = id.strip_prefix(SESSION_PREFIX);
            uuid.is_some_and(|uuid| uuid.len() == 36 && Uuid::try_parse(uuid).is_ok())
        };
        is_valid.then_some(id)
    }

    fn unknown_session(&self) -> Response {
        let status = self.options.strict.unwrap_or(StatusCode::NOT_FOUND);
        (status, "Invalid session ID").into_response()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Option<mpsc::Sender<Line>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            log::info("request abandoned", &format!("method={}", self.method));
        }
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer");
    known.then(|| token.trim().to_owned())
}

fn is_response(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|message| message.get("method").is_none())
}

fn json(status: StatusCode, text: impl Into<Line>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text.into()).into_response()
}

/// An event stream. Dropping it ends its producer.
fn events(first: Option<Line>, rest: mpsc::Receiver<Line>, producer: JoinSet<()>) -> Response {
    let rest = stream::unfold((rest, producer), async |(mut rest, producer)| {
        Some((rest.recv().await?, (rest, producer)))
    });
    let events = stream::iter(first).chain(rest);
    let events =
        events.map(|line| Ok::<_, Infallible>(Event::default().event("message").data(String::from_utf8_lossy(&line))));
    Sse::new(events).into_response()
}
