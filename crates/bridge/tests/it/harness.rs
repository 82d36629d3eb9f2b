//! The two sides of a conversation under test: HTTP exchanges, and servers that are scripted line
//! by line.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

use bridge::{
    Body, Config, ConnectError, Conversation, DropCounts, DropReason, Link, Outcome, Owner, Refusal, ServerEra,
    Snapshot,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longer, on paused time, than anything in a test takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// The server's end of the pipe.
pub(crate) struct Server {
    io: BufReader<DuplexStream>,
    drop_counts: DropCounts,
}

/// A conversation with one attached link.
pub(crate) struct Bridge {
    conversation: Conversation,
    pub(crate) owner: Arc<RecordingOwner>,
    pub(crate) link: Link,
}

/// Records what a conversation asks of its owner.
#[derive(Debug, Default)]
pub(crate) struct RecordingOwner {
    wanted: Mutex<Vec<u64>>,
}

/// The error of an owner that has no server.
#[derive(Debug, thiserror::Error)]
#[error("no server")]
pub(crate) struct NoServer;

/// The kind of an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer,
    Opened,
    End,
    Unserved,
}

/// A response whose head has arrived.
pub(crate) struct Reply {
    pub(crate) kind: Kind,
    pub(crate) status: StatusCode,
    response: Response<Body>,
    buffered: String,
    /// The id of the last event.
    pub(crate) last_id: Option<String>,
}

/// One item of an event stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sse {
    /// The priming event.
    Prime,
    Message(String),
    Comment,
    End,
}

pub(crate) async fn bridge() -> (Arc<Bridge>, Server) {
    bridge_with(Config::default(), 1 << 20).await
}

pub(crate) async fn bridge_with(config: Config, pipe: usize) -> (Arc<Bridge>, Server) {
    let (near, far) = tokio::io::duplex(pipe);
    let server = Server::new(far, &config);
    let bridge = Bridge::connect(near, config, None).await.expect("nothing to replay");
    (Arc::new(bridge), server)
}

pub(crate) fn no_server() -> Refusal {
    Arc::new(NoServer)
}

impl Bridge {
    /// A conversation whose first link is attached to `io`.
    pub(crate) async fn connect<I>(io: I, config: Config, snapshot: Option<&Snapshot>) -> Result<Self, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::connect_as(ServerEra::Legacy, io, config, snapshot).await
    }

    /// The same for a server of another era.
    pub(crate) async fn connect_as<I>(
        era: ServerEra,
        io: I,
        config: Config,
        snapshot: Option<&Snapshot>,
    ) -> Result<Self, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let owner = Arc::new(RecordingOwner::default());
        let conversation = Conversation::new(config, "tag", "grant", Arc::clone(&owner) as Arc<dyn Owner>, snapshot);
        let link = conversation.connect(1, io, era).await?;
        conversation.attach(1);
        Ok(Self {
            conversation,
            owner,
            link,
        })
    }

    /// Connects another server and attaches it.
    pub(crate) async fn rotate(&self, number: u64, script: impl AsyncFnOnce(&mut Server)) -> (Link, Server) {
        let (link, server) = self.start(number, script).await;
        self.attach(number);
        (link.expect("a good replay"), server)
    }

    /// Connects another server, whose side of the handshake is `script`.
    pub(crate) async fn start(
        &self,
        number: u64,
        script: impl AsyncFnOnce(&mut Server),
    ) -> (Result<Link, ConnectError>, Server) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut server = Server::new(far, &Config::default());
        let (link, ()) = tokio::join!(
            self.conversation.connect(number, near, ServerEra::Legacy),
            script(&mut server)
        );
        (link, server)
    }
}

impl Deref for Bridge {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl RecordingOwner {
    /// The links after which the conversation has wanted another one, since the last call.
    pub(crate) fn wanted(&self) -> Vec<u64> {
        std::mem::take(&mut self.wanted.lock().expect("no panic"))
    }
}

impl Owner for RecordingOwner {
    fn want(&self, after: u64) {
        self.wanted.lock().expect("no panic").push(after);
    }

    fn changed(&self) {}

    fn touch(&self) {}
}

impl Server {
    /// The far end of a pipe to a bridge with this configuration.
    pub(crate) fn new(io: DuplexStream, config: &Config) -> Self {
        Self {
            io: BufReader::new(io),
            drop_counts: config.drop_counts.clone(),
        }
    }

    /// The number of messages that the bridge has dropped for this reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.drop_counts.get(reason)
    }

    /// Closes the pipe and returns the counts of the bridge.
    pub(crate) fn close(self) -> DropCounts {
        self.drop_counts
    }

    /// The next line from the bridge; panics at its end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(TEST_TIMEOUT, self.io.read_line(&mut line))
            .await
            .expect("a line")
            .expect("an open pipe");
        assert!(line.ends_with('\n'), "the pipe has ended after {line:?}");
        line.trim_end().to_owned()
    }

    /// The id and the line of the next request.
    pub(crate) async fn request(&mut self) -> (u64, String) {
        let line = self.line().await;
        let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        (message["id"].as_u64().expect("a number"), line)
    }

    pub(crate) async fn write(&mut self, line: &str) {
        self.raw(format!("{line}\n").as_bytes()).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.io.get_mut().write_all(bytes).await.expect("an open pipe");
    }

    pub(crate) async fn result(&mut self, id: u64, result: &str) {
        self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
            .await;
    }

    pub(crate) async fn error(&mut self, id: u64, code: i32) {
        let error = format!(r#"{{"code":{code},"message":"no"}}"#);
        self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
            .await;
    }

    /// True if the bridge writes nothing for this time.
    pub(crate) async fn receives_nothing(&mut self, during: Duration) -> bool {
        let mut line = String::new();
        timeout(during, self.io.read_line(&mut line)).await.is_err()
    }

    /// Waits until the bridge has closed its end.
    pub(crate) async fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        timeout(TEST_TIMEOUT, self.io.read_to_end(&mut rest))
            .await
            .expect("the end")
            .expect("a clean end");
    }
}

/// Starts a POST on its own task.
pub(crate) fn start_post(bridge: &Arc<Bridge>, body: impl Into<Bytes>) -> JoinHandle<Reply> {
    let (bridge, body) = (Arc::clone(bridge), body.into());
    TaskTracker::new().spawn(async move { post(&bridge, body).await })
}

pub(crate) async fn post(bridge: &Conversation, body: impl Into<Bytes>) -> Reply {
    send(bridge, Request::post("/mcp").body(body.into()).expect("a request")).await
}

pub(crate) async fn get(bridge: &Conversation) -> Reply {
    send(bridge, Request::get("/mcp").body(Bytes::new()).expect("a request")).await
}

/// Disconnects a stream and resumes it behind its last event.
pub(crate) async fn resume(bridge: &Conversation, reply: Reply) -> Reply {
    let id = reply.last_id.clone().expect("an event");
    drop(reply);
    resume_from(bridge, &id).await
}

pub(crate) async fn resume_from(bridge: &Conversation, id: &str) -> Reply {
    let request = Request::get("/mcp").header("Last-Event-ID", id);
    send(bridge, request.body(Bytes::new()).expect("a request")).await
}

pub(crate) async fn send(bridge: &Conversation, request: Request<Bytes>) -> Reply {
    let outcome = timeout(TEST_TIMEOUT, bridge.serve(request)).await.expect("a response");
    let (kind, response) = match outcome {
        Outcome::Answer(response) => (Kind::Answer, response),
        Outcome::Opened(response) => (Kind::Opened, response),
        Outcome::End(response) => (Kind::End, response),
        Outcome::Unserved(why) => {
            let body = Full::new(Bytes::from(why.to_string())).map_err(|never| match never {});
            (Kind::Unserved, Response::new(Body::new(body)))
        }
    };
    Reply::of(kind, response)
}

impl Reply {
    pub(crate) fn of(kind: Kind, response: Response<Body>) -> Self {
        Self {
            kind,
            status: response.status(),
            response,
            buffered: String::new(),
            last_id: None,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response
            .headers()
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    /// The whole body of a response that is not an event stream.
    pub(crate) async fn text(mut self) -> String {
        while self.frame().await {}
        self.buffered
    }

    /// The body of a JSON response.
    pub(crate) async fn json(self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.text().await
    }

    /// The JSON-RPC error in a JSON response.
    pub(crate) async fn error(self) -> serde_json::Value {
        serde_json::from_str(&self.json().await).expect("JSON")
    }

    /// The next item of an event stream, comments included.
    pub(crate) async fn next(&mut self) -> Sse {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        loop {
            if let Some((block, rest)) = self.buffered.split_once("\n\n") {
                let (item, id) = parse(block);
                self.buffered = rest.to_owned();
                if id.is_some() {
                    self.last_id = id;
                }
                return item;
            }
            if !self.frame().await {
                assert_eq!(self.buffered, "", "the stream ends within an event");
                return Sse::End;
            }
        }
    }

    /// The next message of an event stream.
    pub(crate) async fn message(&mut self) -> String {
        loop {
            match self.next().await {
                Sse::Message(line) => return line,
                Sse::Prime | Sse::Comment => {}
                Sse::End => panic!("the stream has ended"),
            }
        }
    }

    /// All messages up to the end of an event stream.
    pub(crate) async fn messages(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.next().await {
                Sse::Message(line) => lines.push(line),
                Sse::Prime | Sse::Comment => {}
                Sse::End => return lines,
            }
        }
    }

    async fn frame(&mut self) -> bool {
        let frame = timeout(TEST_TIMEOUT, self.response.body_mut().frame())
            .await
            .expect("a frame or the end");
        let Some(frame) = frame else { return false };
        let data = frame.expect("bodies do not fail").into_data().expect("data");
        self.buffered.push_str(std::str::from_utf8(&data).expect("text"));
        true
    }
}

/// Parses one block of an event stream as strictly as clients do.
fn parse(block: &str) -> (Sse, Option<String>) {
    if block.starts_with(':') {
        return (Sse::Comment, None);
    }
    let (id, rest) = match block.strip_prefix("id: ") {
        Some(block) => {
            let (id, rest) = block.split_once('\n').expect("an id and more");
            (Some(id.to_owned()), rest)
        }
        // Clients of 2026-07-28 resume no stream.
        None => (None, block),
    };
    if rest == "retry: 1000\ndata: " {
        return (Sse::Prime, id);
    }
    let line = rest
        .strip_prefix("event: message\ndata: ")
        .expect("an event of one data line");
    assert!(!line.contains(['\n', '\r']), "{line:?} is more than one line");
    (Sse::Message(line.to_owned()), id)
}

/// The id of a request (JSON text).
pub(crate) fn question_id(line: &str) -> String {
    let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
    message["id"].to_string()
}

/// Waits for a condition that becomes true without time passing.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition does not hold");
}

/// Waits for the end of a bridge.
pub(crate) async fn wait_for_end(done: &CancellationToken) {
    timeout(TEST_TIMEOUT, done.cancelled()).await.expect("the end");
}

/// A request with a numeric id.
pub(crate) fn call(id: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{}}}}"#)
}

pub(crate) fn initialize(version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"c","version":"1"}}}}}}"#
    )
}
