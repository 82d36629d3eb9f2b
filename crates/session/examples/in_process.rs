//! The registry in a service of one's own: axum in front, one's own authentication, and servers that are no processes.
//!
//! A service that wants MCP sessions brings three things: it says who asks (here: a table of API keys), it makes the servers
//! (here: a [`Counter`] in memory for each session), and it mounts [`Registry::serve`] at a path. It gets caps, idle
//! timeouts, revival and orderly shutdown. Run it with `cargo run -p session --example in_process`: it serves itself,
//! asks a few things, and prints the answers.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::{
    error::Error,
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
use session::{
    Config, Registry,
    ports::{
        Backend, Body, BoxFuture, Caller, ClientId, Credential, CredentialError, Credentials, GrantId, Snapshot,
        SpawnError, SpawnOrder, Spawner, UserId,
    },
};
use tokio_util::sync::CancellationToken;

/// Larger requests are refused.
const MAX_BODY: usize = 1024 * 1024;

/// Makes a server for each session. A session that slept gets one that goes on counting where the last one was.
#[derive(Debug)]
struct Counters;

/// An MCP server in this process: it has one tool, which counts.
#[derive(Debug)]
struct Counter {
    user: UserId,
    count: AtomicU64,
    /// Whether `initialize` was answered: before that there is nothing to go on from.
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
            return said(StatusCode::BAD_REQUEST, String::new());
        };
        let Some(id) = message.get("id") else {
            return said(StatusCode::ACCEPTED, String::new());
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
        said(StatusCode::OK, answer.to_string())
    }
}

impl Backend for Counter {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(async move { self.answer(&request) })
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

fn said(status: StatusCode, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The service's own authentication: an API key names a user and an application of theirs.
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
    registry.serve(request).await.map(axum::body::Body::new)
}

/// Serves, asks, and returns what was answered.
///
/// # Errors
///
/// Whatever keeps it from that.
pub(crate) async fn demonstrate() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let config = Config {
        // Short, so that the example shows a session that slept.
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
        let said = ask(&url, &registry).await;
        // First the sessions, so that open streams end, then the listener.
        registry.stop().await;
        stop.cancel();
        said
    };
    let (served, said) = tokio::join!(serving.into_future(), asking);
    served?;
    said
}

async fn ask(url: &str, registry: &Registry) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let client = testkit::plain::client(Duration::from_secs(10));
    let post = |key: &'static str, session: Option<String>, method: &str| {
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string();
        let mut request = client.post(url).header("x-api-key", key).body(body);
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        request.send()
    };
    let mut said = Vec::new();
    let opened = post("ann-on-her-phone", None, "initialize").await?;
    let session = opened
        .headers()
        .get("mcp-session-id")
        .ok_or("no session")?
        .to_str()?
        .to_owned();
    said.push(
        post("ann-on-her-phone", Some(session.clone()), "tools/call")
            .await?
            .text()
            .await?,
    );
    while registry.stats().dormant == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    said.push(
        post("ann-on-her-phone", Some(session.clone()), "tools/call")
            .await?
            .text()
            .await?,
    );
    for key in ["ann-at-her-desk", "a stranger"] {
        said.push(
            post(key, Some(session.clone()), "tools/call")
                .await?
                .status()
                .to_string(),
        );
    }
    Ok(said)
}

#[tokio::main]
#[allow(dead_code, reason = "the tests call `demonstrate`")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    for line in demonstrate().await? {
        println!("{line}");
    }
    Ok(())
}
