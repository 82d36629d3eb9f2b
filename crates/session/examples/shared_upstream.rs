//! One HTTP upstream that all sessions share: each request carries the token of its own user.
//!
//! Some MCP servers read the token from each request, as `forgejo-mcp --transport http` does. A
//! session of such a server needs no process of its own: a [`Forwarder`] asks for the current
//! credential at every request. It reports no expiry ([`Backend::expires_at`]), so the registry
//! never rotates it.
//!
//! `cargo run -p session --example shared_upstream` forwards a few requests and prints the answers.
#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, http::HeaderMap, routing::post};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::ExposeSecret as _;
use session::{
    Config, Registry,
    ports::{
        Backend, Body, BoxError, BoxFuture, Caller, ClientId, Credential, CredentialError, Credentials, GrantId, Reply,
        Snapshot, SpawnError, SpawnOrder, Spawner, UserId,
    },
};
use tokio_util::sync::CancellationToken;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Makes a forwarder for each session. It starts no process.
#[derive(Debug)]
struct SharedUpstream {
    client: HttpClient,
    url: String,
}

/// Forwards the requests of one session to the upstream.
#[derive(Debug)]
struct Forwarder {
    client: HttpClient,
    url: String,
    credentials: Arc<dyn Credentials>,
    /// The session id of the upstream, from its answer to `initialize`. It is the whole snapshot.
    session: Mutex<Option<HeaderValue>>,
    done: CancellationToken,
}

/// A credential with a new token at every request.
#[derive(Debug)]
struct Fresh {
    user: &'static str,
    count: AtomicU64,
}

impl Spawner for SharedUpstream {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(async move {
            let session = order
                .snapshot
                .map(|Snapshot(id)| HeaderValue::from_maybe_shared(id))
                .transpose();
            let forwarder = Forwarder {
                client: self.client.clone(),
                url: self.url.clone(),
                credentials: Arc::clone(&order.caller.credentials),
                session: Mutex::new(session.map_err(|error| SpawnError::Failed(error.into()))?),
                done: CancellationToken::new(),
            };
            Ok(Arc::new(forwarder) as Arc<dyn Backend>)
        })
    }
}

impl Forwarder {
    async fn forward(&self, request: Request<Bytes>) -> Result<Response<Body>, BoxError> {
        let credential = self.credentials.current().await?;
        let (parts, body) = request.into_parts();
        let token = format!("Bearer {}", credential.access_token.expose_secret());
        let mut outgoing = Request::builder()
            .method(parts.method)
            .uri(&self.url)
            .header(header::AUTHORIZATION, token);
        for name in [header::ACCEPT, header::CONTENT_TYPE, "mcp-protocol-version".parse()?] {
            if let Some(value) = parts.headers.get(&name) {
                outgoing = outgoing.header(name, value);
            }
        }
        if let Some(id) = self.session() {
            outgoing = outgoing.header("mcp-session-id", id);
        }
        let answer = self.client.request(outgoing.body(Full::new(body))?).await?;
        if let Some(id) = answer.headers().get("mcp-session-id") {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
        }
        // The body is passed on as it arrives.
        Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }

    fn session(&self) -> Option<HeaderValue> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Backend for Forwarder {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            let message = request.body().clone();
            let answer = self.forward(request).await;
            answer.unwrap_or_else(|_unreachable| unavailable(&message)).into()
        })
    }

    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.done.cancel() })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.session().map(|id| Snapshot(Bytes::copy_from_slice(id.as_bytes())))
    }
}

/// A JSON-RPC error with the id of the request, so that the client does not wait until its timeout.
fn unavailable(message: &[u8]) -> Response<Body> {
    let message: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    let error = serde_json::json!({ "code": -32000, "message": "the MCP server cannot be reached" });
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }).to_string();
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Credentials for Fresh {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            Ok(Credential {
                access_token: format!("{}-{count}", self.user).into(),
                expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40),
            })
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        self.current()
    }
}

/// The upstream: its answer repeats the token that it received.
async fn upstream(headers: HeaderMap, body: Bytes) -> Response<axum::body::Body> {
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let answer = serde_json::json!({
        "jsonrpc": "2.0",
        "id": message["id"],
        "result": { "token": header("authorization"), "session": header("mcp-session-id") },
    });
    let mut response = Response::new(answer.to_string().into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if message["method"] == "initialize" {
        headers.insert("mcp-session-id", HeaderValue::from_static("of-the-upstream"));
    }
    response
}

/// Runs the upstream, sends requests through a registry and returns the answers.
///
/// # Errors
///
/// Any error of the listener or of a request.
pub(crate) async fn demonstrate() -> Result<Vec<String>, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let stop = CancellationToken::new();
    let service = Router::new().route("/mcp", post(upstream));
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let asking = async {
        let answers = ask(url).await;
        stop.cancel();
        answers
    };
    let (served, answers) = tokio::join!(serving.into_future(), asking);
    served?;
    answers
}

async fn ask(url: String) -> Result<Vec<String>, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let registry = Registry::new(Config::default(), Arc::new(SharedUpstream { client, url }));
    let mut answers = Vec::new();
    for user in ["ann", "bob"] {
        let caller = Arc::new(Caller {
            grant: GrantId(user.into()),
            user: UserId(user.into()),
            client: ClientId("example".into()),
            credentials: Arc::new(Fresh {
                user,
                count: AtomicU64::new(0),
            }),
        });
        let opened = registry.serve(request(&caller, None, "initialize")).await.response;
        let id = opened.headers().get("mcp-session-id").cloned().ok_or("no session")?;
        for _ in 0..2 {
            let answer = registry.serve(request(&caller, Some(&id), "tools/call")).await.response;
            assert_eq!(answer.status(), StatusCode::OK);
            answers.push(String::from_utf8(
                answer.into_body().collect().await?.to_bytes().into(),
            )?);
        }
    }
    registry.stop().await;
    Ok(answers)
}

fn request(caller: &Arc<Caller>, session: Option<&HeaderValue>, method: &str) -> Request<Bytes> {
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string();
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = Method::POST;
    if let Some(id) = session {
        request.headers_mut().insert("mcp-session-id", id.clone());
    }
    request.extensions_mut().insert(Arc::clone(caller));
    request
}

#[tokio::main]
#[allow(dead_code, reason = "the tests call `demonstrate`")]
async fn main() -> Result<(), BoxError> {
    for line in demonstrate().await? {
        println!("{line}");
    }
    Ok(())
}
