//! Streamable HTTP as `forgejo-mcp --transport http` speaks it: one process for all users, each request with the token that it
//! carries.
//!
//! It is trusting: no token is checked, no Origin, and a session id is good if it has the right form, whoever has made it up. With
//! [`STRICT`](super::STRICT) it is a server of the other kind. A request is answered with JSON, or with an event stream if something
//! comes before the answer; a GET listens to what belongs to no request of its session. A client that goes away ends its request,
//! which standard error tells.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming as Received, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    forgejo::Api,
    log::Log,
    protocol::{self, Incoming},
    server::{Bench, LINES, WORKERS},
};

/// The largest request body that is read.
const BODY_LIMIT: usize = 8 << 20;
/// What a session id of the right form begins with; a UUID follows.
const SESSION: &str = "mcp-session-";
const SESSION_ID: &str = "mcp-session-id";

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What all requests share.
struct Shared {
    options: Arc<Options>,
    api: Api,
    log: Log,
    workers: Arc<Semaphore>,
    exit: mpsc::Sender<u8>,
    /// The sessions that were opened here and have not ended, and the stream that listens in each. Fields do not depend on each
    /// other, so a poisoned lock is still whole; never held across an await.
    sessions: Mutex<HashMap<String, Option<mpsc::Sender<String>>>>,
}

/// Lines as an event stream. Whatever makes them ends when it is dropped.
struct Events {
    first: Option<String>,
    lines: mpsc::Receiver<String>,
    _work: JoinSet<()>,
}

/// Tells standard error if a request is dropped before it has its answer.
struct Pending<'a> {
    log: &'a Log,
    method: &'a str,
    answered: bool,
}

/// Serves until `terminate` fires; gives the exit code.
pub(super) async fn serve(options: Options, api: Api, log: Log, port: u16, terminate: &CancellationToken) -> u8 {
    let listener = match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => listener,
        Err(error) => {
            log.error("cannot listen", &error.to_string());
            return 1;
        }
    };
    let (exit, mut exits) = mpsc::channel(1);
    log.info("serving on http", &format!("url={} port={port}", options.url));
    let shared = Arc::new(Shared {
        options: Arc::new(options),
        api,
        log,
        workers: Arc::new(Semaphore::new(WORKERS)),
        exit,
        sessions: Mutex::default(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = terminate.cancelled() => return 0,
            Some(code) = exits.recv() => return code,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Received>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(exchange(&shared, request).await) }
    });
    // A connection that breaks is not a failure of the server.
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn exchange(shared: &Arc<Shared>, request: Request<Received>) -> Reply {
    if request.uri().path() != "/mcp" {
        return plain(StatusCode::NOT_FOUND, "404 page not found");
    }
    let (parts, body) = request.into_parts();
    let token = token(&parts.headers);
    if shared.options.strict && !shared.accepts(token.clone()).await {
        return plain(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    let session = parts.headers.get(SESSION_ID).and_then(|value| value.to_str().ok());
    match parts.method {
        Method::POST => {
            let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large");
            };
            post(shared, token, session, &body.to_bytes()).await
        }
        Method::GET => match session.filter(|id| shared.knows(id)) {
            Some(id) => shared.listen(id),
            None => plain(StatusCode::NOT_FOUND, "Invalid session ID"),
        },
        Method::DELETE => match session.filter(|id| shared.knows(id)) {
            Some(id) => {
                shared.sessions().remove(id);
                shared.log.info("session ended", "");
                plain(StatusCode::OK, "")
            }
            None => plain(StatusCode::NOT_FOUND, "Invalid session ID"),
        },
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
    }
}

async fn post(shared: &Arc<Shared>, token: Option<String>, session: Option<&str>, body: &[u8]) -> Reply {
    let (id, method, params) = match Incoming::read(body) {
        Incoming::Request { id, method, params } => (id, method, params),
        Incoming::Ignored => {
            return match session {
                Some(id) if shared.knows(id) => {
                    shared.log.info("message accepted", "");
                    plain(StatusCode::ACCEPTED, "")
                }
                Some(_) | None => plain(StatusCode::NOT_FOUND, "Invalid session ID"),
            };
        }
        Incoming::Refused { id, failure } => {
            return json(StatusCode::BAD_REQUEST, protocol::answer(&id, Err(failure)));
        }
    };
    let opens = method == "initialize";
    let session = match session {
        _ if opens => shared.open(),
        Some(id) if shared.knows(id) => id.to_owned(),
        Some(_) | None => return plain(StatusCode::NOT_FOUND, "Invalid session ID"),
    };
    let (lines, mut answers) = mpsc::channel(LINES);
    let own = shared.sessions().get(&session).cloned().flatten();
    let bench = Bench {
        options: Arc::clone(&shared.options),
        api: Arc::new(shared.api.with_token(token)),
        log: shared.log.clone(),
        workers: Arc::clone(&shared.workers),
        own: own.unwrap_or_else(|| lines.clone()),
        lines,
        exit: shared.exit.clone(),
    };
    let mut work = JoinSet::new();
    work.spawn(async move {
        let log = bench.log.clone();
        let mut pending = Pending {
            log: &log,
            method: &method,
            answered: false,
        };
        bench.request(&id, &method, &params).await;
        pending.answered = true;
    });
    let Some(first) = answers.recv().await else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
    };
    let mut reply = if is_answer(&first) {
        json(StatusCode::OK, first)
    } else {
        events(Events {
            first: Some(first),
            lines: answers,
            _work: work,
        })
    };
    if opens && let Ok(id) = session.parse() {
        reply.headers_mut().insert(SESSION_ID, id);
    }
    reply
}

impl Shared {
    /// Opens a session and gives its id.
    fn open(&self) -> String {
        let mut random = [0; 16];
        // Without randomness the ids are alike, and tests that tell sessions apart fail.
        let _ = getrandom::fill(&mut random);
        let text = hex::encode(random);
        let id = format!(
            "{SESSION}{}-{}-{}-{}-{}",
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..]
        );
        self.sessions().insert(id.clone(), None);
        self.log.info("session opened", "");
        id
    }

    /// Whether a session id is good here.
    fn knows(&self, id: &str) -> bool {
        if self.options.strict {
            return self.sessions().contains_key(id);
        }
        let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        id.strip_prefix(SESSION).is_some_and(|uuid| {
            let parts: Vec<&str> = uuid.split('-').collect();
            parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hex(part))
        })
    }

    /// Whether Forgejo accepts the token of a request.
    async fn accepts(&self, token: Option<String>) -> bool {
        token.is_some() && self.api.with_token(token).user().await.is_ok()
    }

    /// The stream that listens in a session, in the place of the one before.
    fn listen(&self, id: &str) -> Reply {
        let (lines, own) = mpsc::channel(LINES);
        self.sessions().insert(id.to_owned(), Some(lines));
        self.log.info("listening", "");
        events(Events {
            first: None,
            lines: own,
            _work: JoinSet::new(),
        })
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Option<mpsc::Sender<String>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = match self.first.take() {
            Some(line) => Poll::Ready(Some(line)),
            None => self.lines.poll_recv(cx),
        };
        line.map(|line| line.map(|line| Ok(Frame::data(Bytes::from(format!("event: message\ndata: {line}\n\n"))))))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.log.info("request abandoned", &format!("method={}", self.method));
        }
    }
}

/// The token of `Authorization: token X` or `Bearer X`.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer");
    known.then(|| token.trim().to_owned())
}

fn is_answer(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|message| message.get("method").is_none())
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    reply(status, "text/plain; charset=utf-8", Full::from(text).boxed_unsync())
}

fn json(status: StatusCode, text: String) -> Reply {
    reply(status, "application/json", Full::from(text).boxed_unsync())
}

fn events(events: Events) -> Reply {
    reply(StatusCode::OK, "text/event-stream", events.boxed_unsync())
}

fn reply(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::RequestBuilder;
    use serde_json::json;

    use super::*;
    use crate::{
        broker::free_port,
        child::run_http,
        forgejo::{FakeForgejo, Options as ForgejoOptions},
        plain,
    };

    /// A double that serves, and a client for it.
    struct Rig {
        http: reqwest::Client,
        url: String,
        forgejo: FakeForgejo,
        _server: JoinSet<u8>,
    }

    impl Rig {
        async fn start(strict: bool) -> Self {
            let forgejo = FakeForgejo::start(ForgejoOptions::default()).await.unwrap();
            let port = free_port();
            let options = Options {
                url: forgejo.url().to_owned(),
                token: None,
                test_tools: true,
                environment: Vec::new(),
                http_port: Some(port),
                strict,
            };
            let mut server = JoinSet::new();
            server.spawn(run_http(
                options,
                port,
                Box::new(std::io::sink()),
                CancellationToken::new(),
            ));
            let rig = Self {
                http: plain::client(Duration::from_secs(20)),
                url: format!("http://127.0.0.1:{port}/mcp"),
                forgejo,
                _server: server,
            };
            while rig.http.get(&rig.url).send().await.is_err() {
                tokio::task::yield_now().await;
            }
            rig
        }

        fn post(&self, session: Option<&str>, token: &str, message: &Value) -> RequestBuilder {
            let request = self.http.post(&self.url).header(header::AUTHORIZATION, token);
            let request = request.body(message.to_string());
            session
                .into_iter()
                .fold(request, |request, id| request.header(SESSION_ID, id))
        }

        async fn open(&self, token: &str) -> String {
            let opening = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
            let answer = self.post(None, token, &opening).send().await.unwrap();
            answer.headers()[SESSION_ID].to_str().unwrap().to_owned()
        }
    }

    fn call(tool: &str, arguments: &Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": 1 } });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
    }

    #[tokio::test]
    async fn each_request_has_the_token_that_it_carries_in_either_spelling() {
        let rig = Rig::start(false).await;
        let session = rig.open("").await;
        for (login, scheme) in [("alice", "token"), ("bob", "Bearer")] {
            let token = rig.forgejo.access_token(login, "read:user");
            let asked = rig.post(
                Some(&session),
                &format!("{scheme} {token}"),
                &call("get_my_user_info", &json!({})),
            );
            let answer: Value = asked.send().await.unwrap().json_value().await;
            assert!(answer["result"].to_string().contains(login), "{answer}");
        }
    }

    #[tokio::test]
    async fn any_session_id_of_the_right_form_is_good_unless_it_is_strict() {
        let made_up = "mcp-session-01234567-89ab-cdef-0123-456789abcdef";
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
        for (strict, expected) in [(false, StatusCode::OK), (true, StatusCode::NOT_FOUND)] {
            let rig = Rig::start(strict).await;
            let token = format!("Bearer {}", rig.forgejo.access_token("alice", "read:user"));
            let answer = rig.post(Some(made_up), &token, &ping).send().await.unwrap();
            assert_eq!(answer.status(), expected, "strict: {strict}");
            for bad in [None, Some("mcp-session-1"), Some("1")] {
                let answer = rig.post(bad, &token, &ping).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{bad:?}");
            }
            let session = rig.open(&token).await;
            let answer = rig.post(Some(&session), &token, &ping).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let stranger = rig.post(Some(&session), "Bearer nobody", &ping).send().await.unwrap();
            let refused = if strict {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::OK
            };
            assert_eq!(stranger.status(), refused, "strict: {strict}");
        }
    }

    #[tokio::test]
    async fn what_comes_before_an_answer_makes_it_a_stream_and_a_get_hears_the_rest() {
        let rig = Rig::start(false).await;
        let session = rig.open("").await;
        let progress = call("test_progress", &json!({ "steps": 2 }));
        let answer = rig.post(Some(&session), "", &progress).send().await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        let text = answer.text().await.unwrap();
        assert_eq!(text.matches("notifications/progress").count(), 2);
        assert!(text.ends_with("\n\n") && text.contains("done"), "{text}");

        let listening = rig.http.get(&rig.url).header(SESSION_ID, &session).send();
        let mut listening = listening.await.unwrap();
        let announced = rig.post(Some(&session), "", &call("test_announce", &json!({})));
        announced.send().await.unwrap();
        let heard = listening.chunk().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&heard).contains("tools/list_changed"));
    }

    /// Reads an answer as JSON.
    trait JsonValue {
        async fn json_value(self) -> Value;
    }

    impl JsonValue for reqwest::Response {
        async fn json_value(self) -> Value {
            serde_json::from_slice(&self.bytes().await.unwrap()).unwrap()
        }
    }
}
