//! A conversation with a link to a scripted HTTP server.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bridge::{
    Config, ConnectError, Conversation, Link, Owner, ServerEra,
    http::{BoxFuture, Endpoint, EndpointConfig, TokenError, TokenSource},
};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::harness::{Kind, RecordingOwner, Reply, get, initialize, post};

pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const MAX_MESSAGE: usize = 4096;
pub(super) const VERSION: &str = "2025-06-18";

/// The placeholder for the id of the last request.
pub(super) const ITS_ID: &str = "(its id)";

/// Marks a response that waits for the gate.
const HELD: &str = "held: ";

/// A request that the server received.
#[derive(Debug)]
pub(super) struct Received {
    /// `POST /mcp HTTP/1.1`.
    pub(super) line: String,
    /// In lower case, without `host`, `user-agent` and `content-length`, sorted.
    pub(super) headers: Vec<String>,
    pub(super) body: String,
}

/// A server that answers requests in order with scripted responses, and records the requests.
pub(super) struct ScriptedServer {
    url: String,
    pub(super) seen: mpsc::UnboundedReceiver<Received>,
    /// One permit for each response that waits for it.
    pub(super) gate: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

/// The state that the connections of a server share.
struct Script {
    answers: Mutex<VecDeque<String>>,
    last_id: Mutex<Value>,
    gate: Arc<Semaphore>,
    record: mpsc::UnboundedSender<Received>,
}

/// A conversation with an attached link.
pub(super) struct HttpTest {
    pub(super) script: ScriptedServer,
    pub(super) conversation: Arc<Conversation>,
    pub(super) owner: Arc<RecordingOwner>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) link: Link,
    endpoint: Arc<Endpoint>,
}

/// Tokens with a number that each renewal raises.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) asked: AtomicU64,
    pub(super) renewals: AtomicU64,
    /// No renewal is permitted.
    pub(super) exhausted: AtomicBool,
    /// No token comes.
    pub(super) stuck: AtomicBool,
}

impl TokenSource for Tokens {
    fn current(&self) -> BoxFuture<'_, Result<HeaderValue, TokenError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let token = format!("Bearer token-{}", self.renewals.load(Ordering::Relaxed));
        Box::pin(async {
            if self.stuck.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(token.try_into().expect("a header value"))
        })
    }

    fn replacement<'a>(&'a self, refused: &'a HeaderValue) -> BoxFuture<'a, Result<Option<HeaderValue>, TokenError>> {
        Box::pin(async {
            let current = self.current().await?;
            if current != *refused {
                return Ok(Some(current));
            }
            if self.exhausted.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.renewals.fetch_add(1, Ordering::Relaxed);
            self.current().await.map(Some)
        })
    }
}

impl ScriptedServer {
    /// Each response is the text after `HTTP/1.1 `; the connection closes after it. Those that are
    /// [`held`] wait for the gate. After the last response, connections stay open without one.
    pub(super) async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
        #[expect(clippy::disallowed_methods, reason = "a script has an end")]
        let (record, seen) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let script = Arc::new(Script {
            answers: Mutex::new(answers.into_iter().collect()),
            last_id: Mutex::default(),
            gate: Arc::clone(&gate),
            record,
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let script = Arc::clone(&script);
                connections.spawn(async move { script.play(stream).await });
            }
        });
        Self {
            url,
            seen,
            gate,
            _serving: serving,
        }
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Received {
        let seen = timeout(LIMIT, self.seen.recv()).await.expect("a request in time");
        seen.expect("the script goes on")
    }

    pub(super) fn endpoint(&self) -> Arc<Endpoint> {
        endpoint(&self.url)
    }
}

impl Script {
    async fn play(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let seen = read(&mut stream).await;
        let asked: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let id = {
            let mut last_id = self.last_id.lock().expect("no panic");
            if asked["method"].is_string() && !asked["id"].is_null() {
                *last_id = asked["id"].clone();
            }
            last_id.to_string()
        };
        let answer = self.answers.lock().expect("no panic").pop_front();
        let _ = self.record.send(seen);
        let Some(answer) = answer else {
            return std::future::pending().await;
        };
        let answer = answer.replace(&format!("\"{ITS_ID}\""), &id);
        let answer = match answer.strip_prefix(HELD) {
            Some(answer) => {
                self.gate.acquire().await.expect("open").forget();
                answer
            }
            None => &answer,
        };
        // The client may have closed the connection.
        let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Received {
    let mut line = String::new();
    stream.read_line(&mut line).await.expect("a request");
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.expect("a header");
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        let name = name.to_lowercase();
        match name.as_str() {
            "content-length" => length = value.parse().expect("a number"),
            "host" | "user-agent" => {}
            _ => headers.push(format!("{name}: {value}")),
        }
    }
    headers.sort();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    Received {
        line: line.trim_end().to_owned(),
        headers,
        body: String::from_utf8(body).expect("text"),
    }
}

impl HttpTest {
    /// A conversation without a handshake, whose link 1 is attached.
    pub(super) async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        Self::start_as(Some(ServerEra::Legacy), answers).await
    }

    /// As [`start`](Self::start), with a server of this era, or one that is asked for it.
    pub(super) async fn start_as(era: Option<ServerEra>, answers: impl IntoIterator<Item = String>) -> Self {
        let script = ScriptedServer::start(answers).await;
        let config = Config {
            max_line: MAX_MESSAGE,
            // A silent server makes no event stream.
            sse_upgrade_delay: LIMIT,
            ..Config::default()
        };
        let owner = Arc::new(RecordingOwner::default());
        let conversation = Conversation::new(config, "tag", "grant", Arc::clone(&owner) as Arc<dyn Owner>, None);
        let tokens = Arc::new(Tokens::default());
        let of_link = Arc::clone(&tokens) as Arc<dyn TokenSource>;
        let endpoint = endpoint_as(&script.url, era);
        let link = conversation.connect_http(1, Arc::clone(&endpoint), of_link).await;
        conversation.attach(1);
        Self {
            script,
            conversation: Arc::new(conversation),
            owner,
            tokens,
            link: link.expect("nothing to replay"),
            endpoint,
        }
    }

    /// A conversation after its handshake; `answers` are the responses after that.
    pub(super) async fn open(answers: impl IntoIterator<Item = String>) -> Self {
        let handshake = [opened("of-the-server"), accepted()];
        let mut test = Self::start(handshake.into_iter().chain(answers)).await;
        assert_eq!(test.post(initialize(VERSION)).await.kind, Kind::Opened);
        test.notify("notifications/initialized").await;
        for method in ["initialize", "notifications/initialized"] {
            assert!(test.script.next().await.body.contains(method));
        }
        test
    }

    /// Connects link 2 to the same server, and attaches it.
    pub(super) async fn connect_another(&self) -> Result<Link, ConnectError> {
        let tokens = Arc::new(Tokens::default());
        let endpoint = Arc::clone(&self.endpoint);
        let link = self.conversation.connect_http(2, endpoint, tokens).await;
        self.conversation.attach(2);
        link
    }

    pub(super) async fn post(&self, body: impl Into<bytes::Bytes>) -> Reply {
        timeout(LIMIT, post(&self.conversation, body))
            .await
            .expect("a response in time")
    }

    pub(super) async fn get(&self) -> Reply {
        timeout(LIMIT, get(&self.conversation))
            .await
            .expect("a response in time")
    }

    /// Posts on a task.
    pub(super) fn begin(&self, body: impl Into<bytes::Bytes>) -> JoinHandle<Reply> {
        let (conversation, body) = (Arc::clone(&self.conversation), body.into());
        TaskTracker::new().spawn(async move { post(&conversation, body).await })
    }

    pub(super) async fn notify(&self, method: &str) {
        let notification = json!({ "jsonrpc": "2.0", "method": method });
        assert_eq!(self.post(notification.to_string()).await.status, 202);
    }

    /// Cancels the request with this id.
    pub(super) async fn cancel(&self, id: u64) {
        let params = json!({ "requestId": id });
        let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        assert_eq!(self.post(cancelled.to_string()).await.status, 202);
    }

    /// The response to a ping with this id.
    pub(super) async fn ping(&self, id: u64) -> Value {
        value(self.post(ping(id)).await).await
    }

    /// The message of the error response to a ping with this id.
    pub(super) async fn error(&self, id: u64) -> String {
        error(self.post(ping(id)).await, id).await
    }

    pub(super) async fn wait_for_end(&self) {
        timeout(LIMIT, self.link.done().cancelled()).await.expect("the end");
    }

    /// Waits until the conversation asks for a link newer than `after`.
    pub(super) async fn wants(&self, after: u64) {
        let wanted = async {
            while !self.owner.wanted().contains(&after) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, wanted).await.expect("it wants a link");
    }
}

pub(super) fn endpoint(url: &str) -> Arc<Endpoint> {
    endpoint_as(url, Some(ServerEra::Legacy))
}

fn endpoint_as(url: &str, era: Option<ServerEra>) -> Arc<Endpoint> {
    let config = EndpointConfig {
        url: url.parse().expect("a URL"),
        era,
        connect_timeout: LIMIT,
        stop_grace: LIMIT,
    };
    Arc::new(Endpoint::new(config).expect("an HTTP client"))
}

pub(super) async fn value(reply: Reply) -> Value {
    serde_json::from_str(&reply.json().await).expect("JSON")
}

/// The message of the error response to the request with this id.
pub(super) async fn error(reply: Reply, id: u64) -> String {
    let answer = value(reply).await;
    assert_eq!(answer["id"], id, "{answer}");
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    answer["error"]["message"].as_str().expect("a message").to_owned()
}

pub(super) async fn joined(reply: JoinHandle<Reply>) -> Reply {
    let reply = timeout(LIMIT, reply).await.expect("a response in time");
    reply.expect("no panic")
}

pub(super) fn ping(id: u64) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }).to_string()
}

pub(super) fn held(answer: &str) -> String {
    format!("{HELD}{answer}")
}

pub(super) fn opened_with(session: &str, result: &Value) -> String {
    let answer = json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": result });
    with_header(&json_answer(&answer), &format!("Mcp-Session-Id: {session}"))
}

/// The response to a handshake, with this session id.
pub(super) fn opened(session: &str) -> String {
    opened_with(session, &result(VERSION))
}

pub(super) fn result(version: &str) -> Value {
    json!({ "protocolVersion": version, "capabilities": {}, "serverInfo": { "name": "test", "version": "1" } })
}

/// It has no `Content-Length`, since the length of the id is not known.
pub(super) fn with_type(status: &str, kind: &str, body: &str) -> String {
    format!("{status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}")
}

pub(super) fn json_text(body: &str) -> String {
    with_type("200 OK", "application/json", body)
}

pub(super) fn json_answer(body: &Value) -> String {
    json_text(&body.to_string())
}

/// An empty result for the last request.
pub(super) fn pong() -> String {
    json_answer(&json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": {} }))
}

pub(super) fn accepted() -> String {
    with_type("202 Accepted", "text/plain", "")
}

pub(super) fn events(body: &str) -> String {
    with_type("200 OK", "text/event-stream", body)
}

pub(super) fn status(status: &str) -> String {
    with_type(status, "text/plain", "no")
}

pub(super) fn with_header(answer: &str, header: &str) -> String {
    answer.replacen("\r\n", &format!("\r\n{header}\r\n"), 1)
}
