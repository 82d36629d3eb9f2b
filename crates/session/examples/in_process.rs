//! An axum service that embeds the registry, with its own authentication and MCP servers that run
//! in the same process.
//!
//! A service that wants MCP sessions does three things. It names the caller of each request (here
//! from a table of API keys), it starts the MCP servers (here a [`Counter`] in memory for each
//! session), and it mounts [`Registry::serve`] at a path. The registry gives it quotas, idle
//! timeouts, revival and orderly shutdown.
//!
//! `cargo run -p session --example in_process` starts the service, sends it a few requests and
//! prints the answers.
#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, body::to_bytes, extract::State, response::IntoResponse, routing::any};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use session::{
    Config, Registry,
    ports::{
        Backend, Body, BoxError, BoxFuture, Caller, ClientId, Credential, CredentialError, Credentials, GrantId, Reply,
        Snapshot, SpawnError, SpawnOrder, Spawner, UserId,
    },
};
use tokio_util::sync::CancellationToken;

/// The largest request body, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Starts a [`Counter`] for each session. The counter of a revived session goes on from the
/// snapshot of the last one.
#[derive(Debug)]
struct Counters;

/// An MCP server with one tool, which counts its calls.
#[derive(Debug)]
struct Counter {
    user: UserId,
    count: AtomicU64,
    /// Set once `initialize` was answered. Before that the server has no snapshot.
    ready: Mutex<bool>,
    done: CancellationToken,
}

/// These servers need no upstream credential.
#[derive(Debug)]
struct NoCredential;

impl Spawner for Counters {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(async move {
            let ready = order.snapshot.is_some();
            let count = match order.snapshot {
                Some(Snapshot(bytes)) => {
                    let text = String::from_utf8_lossy(&bytes);
                    text.parse::<u64>().map_err(|error| SpawnError::Failed(error.into()))?
                }
                None => 0,
            };
            let counter = Counter {
                user: order.caller.user.clone(),
                count: AtomicU64::new(count),
                ready: Mutex::new(ready),
                done: CancellationToken::new(),
            };
            Ok(Arc::new(counter) as Arc<dyn Backend>)
        })
    }
}

impl Counter {
    fn answer(&self, request: &Request<Bytes>) -> Response<Body> {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(request.body()) else {
            return json(StatusCode::BAD_REQUEST, String::new());
        };
        let Some(id) = message.get("id") else {
            return json(StatusCode::ACCEPTED, String::new());
        };
        let result = match message["method"].as_str() {
            Some("initialize") => {
                *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = true;
                serde_json::json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": { "tools": {} },
                    "serverInfo": { "name": "counter", "version": "1" },
                })
            }
            Some("tools/call") => {
                let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                let text = format!("{} has counted to {count}", self.user.0);
                serde_json::json!({ "content": [{ "type": "text", "text": text }] })
            }
            _ => serde_json::json!({}),
        };
        let answer = serde_json::json!({ "jsonrpc": "2.0", "id": id, "result": result });
        json(StatusCode::OK, answer.to_string())
    }
}

impl Backend for Counter {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Reply> {
        Box::pin(async move { self.answer(&request).into() })
    }

    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.done.cancel() })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let ready = *self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.then(|| Snapshot(self.count.load(Ordering::Relaxed).to_string().into()))
    }
}

impl Credentials for NoCredential {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            Ok(Credential {
                access_token: String::new().into(),
                expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40),
            })
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        self.current()
    }
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The authentication of the service: an API key names a user and one of the user's applications.
fn authenticate(request: &axum::extract::Request) -> Option<Arc<Caller>> {
    let key = request.headers().get("x-api-key")?.to_str().ok()?;
    let (user, application) = match key {
        "ann-on-her-phone" => ("ann", "phone"),
        "ann-at-her-desk" => ("ann", "desk"),
        _ => return None,
    };
    Some(Arc::new(Caller {
        grant: GrantId(format!("{user}/{application}").into()),
        user: UserId(user.into()),
        client: ClientId(application.into()),
        credentials: Arc::new(NoCredential),
    }))
}

async fn mcp(State(registry): State<Arc<Registry>>, request: axum::extract::Request) -> axum::response::Response {
    let Some(caller) = authenticate(&request) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(caller);
    registry.serve(request).await.response.map(axum::body::Body::new)
}

/// Runs the service, sends requests to it and returns the answers.
///
/// # Errors
///
/// Any error of the listener or of a request.
pub(crate) async fn demonstrate() -> Result<Vec<String>, BoxError> {
    let config = Config {
        // Short, so that the session goes dormant while the example runs.
        idle_timeout: Duration::from_millis(50),
        reap_interval: Duration::from_millis(10),
        retain: Duration::from_secs(3600),
        ..Config::default()
    };
    let registry = Arc::new(Registry::new(config, Arc::new(Counters)));
    let service = Router::new().route("/mcp", any(mcp)).with_state(Arc::clone(&registry));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let stop = CancellationToken::new();
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let asking = async {
        let answers = ask(&url, &registry).await;
        // The sessions stop first, so that open streams end, and the listener last.
        registry.stop().await;
        stop.cancel();
        answers
    };
    let (served, answers) = tokio::join!(serving.into_future(), asking);
    served?;
    answers
}

async fn ask(url: &str, registry: &Registry) -> Result<Vec<String>, BoxError> {
    let opened = post(url, "ann-on-her-phone", None, "initialize").await?;
    let session = opened.headers().get("mcp-session-id").ok_or("no session id")?;
    let first = post(url, "ann-on-her-phone", Some(session), "tools/call").await?;
    // The registry stops the idle server; the next request starts another one, which goes on
    // counting.
    while registry.stats().dormant == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = post(url, "ann-on-her-phone", Some(session), "tools/call").await?;
    let mut answers = vec![first.into_body(), second.into_body()];
    // A session is bound to its grant: another application of the same user must not use it.
    for key in ["ann-at-her-desk", "an unknown key"] {
        let refused = post(url, key, Some(session), "tools/call").await?;
        answers.push(refused.status().to_string());
    }
    Ok(answers)
}

/// Posts a message with an API key and reads the whole answer.
async fn post(url: &str, key: &str, session: Option<&HeaderValue>, method: &str) -> Result<Response<String>, BoxError> {
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string();
    let mut request = Request::post(url).header("x-api-key", key);
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (parts, body) = client
        .request(request.body(Full::new(Bytes::from(body)))?)
        .await?
        .into_parts();
    let body = String::from_utf8(body.collect().await?.to_bytes().into())?;
    Ok(Response::from_parts(parts, body))
}

#[tokio::main]
#[allow(dead_code, reason = "the tests call `demonstrate`")]
async fn main() -> Result<(), BoxError> {
    for line in demonstrate().await? {
        println!("{line}");
    }
    Ok(())
}
