//! A reverse proxy on loopback that adds a bearer, and can break a connection.
//!
//! It stands in front of a broker as an operator's proxy does: the broker's `public_url` names it,
//! and Host and Origin pass unchanged. Once it has a bearer, it adds an `Authorization` header to
//! requests at the MCP endpoint without one. It can also act as a network that loses connections:
//! an event stream that answers a call of a chosen tool ends after its first event. It records the
//! requests at the MCP endpoint, so that a test can see when a client comes back, and how often.
//!
//! Left out: TLS, HTTP/2, and kept connections to the broker; each exchange has its own, which ends
//! with the client's.

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use crate::{http_client, http_server::HttpServer};

const BODY_LIMIT: usize = 16 << 20;

/// The time limit of an exchange: longer than any test.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

const MCP_PATH: &str = "/mcp";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The kernel's table of the IPv4 sockets of this network namespace (`proc_net_tcp(5)`). Nobody
/// signals a change of it.
const TCP_SOCKETS: &str = "/proc/net/tcp";

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The end of an event (HTML standard, section 9.2.5).
const END_OF_EVENT: &[u8] = b"\n\n";

/// A running forwarder. Dropping it ends it and every exchange.
#[derive(Debug)]
pub struct Forwarder {
    server: HttpServer,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    upstream: u16,
    cut: Option<String>,
    /// Signalled after each change of the requests.
    changes: watch::Sender<()>,
    /// The fields are independent, so a poisoned lock is still consistent; never held across an
    /// await.
    state: Mutex<ForwarderState>,
}

#[derive(Debug, Default)]
struct ForwarderState {
    bearer: Option<HeaderValue>,
    cuts: usize,
    requests: Vec<McpRequest>,
}

/// A request at the MCP endpoint.
#[derive(Clone, Debug)]
pub struct McpRequest {
    /// The time of its arrival.
    pub at: Instant,
    pub method: Method,
    pub last_event_id: Option<String>,
    /// The status of the answer; `None` before its head has come.
    pub status: Option<StatusCode>,
    /// The answer is an event stream, and its first event has been passed on.
    pub stream_begun: bool,
}

impl Forwarder {
    /// Binds `127.0.0.1:port` and forwards to `127.0.0.1:upstream`. `cut` names the tool whose
    /// streams are cut.
    pub async fn start(port: u16, upstream: u16, cut: Option<&str>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            http: http_client::without_keep_alive(TIMEOUT),
            upstream,
            cut: cut.map(str::to_owned),
            changes: watch::Sender::default(),
            state: Mutex::default(),
        });
        let router = Router::new()
            .fallback(forward)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(Arc::clone(&shared));
        let server = HttpServer::start(port, router).await?;
        Ok(Self { server, shared })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.url())
    }

    /// Adds this bearer to requests without one.
    pub fn set_bearer(&self, token: &str) {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a bearer is visible ASCII");
        bearer.set_sensitive(true);
        self.shared.state().bearer = Some(bearer);
    }

    pub fn cuts(&self) -> usize {
        self.shared.state().cuts
    }

    pub fn resumptions(&self) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.last_event_id.is_some())
            .count()
    }

    /// The requests at the MCP endpoint, in the order of their arrival.
    pub fn requests(&self) -> Vec<McpRequest> {
        self.shared.state().requests.clone()
    }

    /// Waits until the requests fulfill a condition. Cancel safe.
    pub async fn wait_for(&self, condition: impl Fn(&[McpRequest]) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        // The sender lives as long as this forwarder.
        let _ = changes.wait_for(|()| condition(&self.requests())).await;
    }

    /// Waits until the clients have read all that this forwarder has written to their connections.
    /// Cancel safe.
    pub async fn all_is_read(&self) -> io::Result<()> {
        while unread_bytes(self.server.address().port(), &fs::read_to_string(TCP_SOCKETS)?) > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ForwarderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls_cut_tool(&self, method: &Method, body: &[u8]) -> bool {
        let message = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        let calls = |tool: &String, message: &Value| {
            message["method"] == "tools/call" && message["params"]["name"].as_str() == Some(tool)
        };
        method == Method::POST && self.cut.as_ref().is_some_and(|tool| calls(tool, &message()))
    }

    /// Records a request. Returns its index.
    fn record(&self, method: &Method, headers: &HeaderMap) -> usize {
        let last_event_id = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let request = McpRequest {
            at: Instant::now(),
            method: method.clone(),
            last_event_id: last_event_id.map(str::to_owned),
            status: None,
            stream_begun: false,
        };
        let mut state = self.state();
        state.requests.push(request);
        let index = state.requests.len() - 1;
        drop(state);
        self.changes.send_replace(());
        index
    }

    async fn exchange(
        self: &Arc<Self>,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, reqwest::Error> {
        let may_be_cut = self.calls_cut_tool(&method, &body);
        let recorded = (uri.path() == MCP_PATH).then(|| self.record(&method, &headers));
        headers.remove(CONNECTION);
        headers.remove(TRANSFER_ENCODING);
        if let Some(bearer) = &self.state().bearer
            && uri.path() == MCP_PATH
        {
            headers.entry(AUTHORIZATION).or_insert(bearer.clone());
        }
        let url = format!("http://127.0.0.1:{}{uri}", self.upstream);
        let request = self.http.request(method, url).headers(headers).body(body);
        let mut response = request.send().await?;

        let content_type = response.headers().get(CONTENT_TYPE);
        let is_stream = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if let Some(index) = recorded {
            self.state().requests[index].status = Some(response.status());
            self.changes.send_replace(());
        }
        let first_event = if may_be_cut && is_stream {
            Some(first_event(&mut response).await?)
        } else {
            None
        };
        let shared = Arc::clone(self);
        let mut response = http::Response::from(response).map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(index) = recorded.filter(|_| is_stream) {
                    shared.state().requests[index].stream_begun = true;
                    shared.changes.send_replace(());
                }
                frame
            }))
        });
        response.headers_mut().remove(CONNECTION);
        response.headers_mut().remove(TRANSFER_ENCODING);
        if let Some(event) = first_event {
            self.state().cuts += 1;
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::from(event);
        }
        Ok(response)
    }
}

async fn forward(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let response = shared.exchange(method, &uri, headers, body).await;
    response.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

/// The bytes that wait in the buffers of connections to a port: sent from it and not acknowledged,
/// or arrived at the other end and not read.
fn unread_bytes(port: u16, sockets: &str) -> u64 {
    let has_port = |address: &str| address.ends_with(&format!(":{port:04X}"));
    let unread = sockets.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        let (sent, arrived) = columns.nth(1)?.split_once(':')?;
        let waiting = if has_port(remote) {
            arrived
        } else if has_port(local) && !remote.ends_with(":0000") {
            sent
        } else {
            return None;
        };
        u64::from_str_radix(waiting, 16).ok()
    });
    unread.sum()
}

async fn first_event(response: &mut reqwest::Response) -> Result<Bytes, reqwest::Error> {
    let mut read = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        read.extend_from_slice(&chunk);
        let end = read.windows(END_OF_EVENT.len()).position(|bytes| bytes == END_OF_EVENT);
        if let Some(end) = end {
            read.truncate(end + END_OF_EVENT.len());
            break;
        }
    }
    Ok(read.freeze())
}
