//! The two sides of a bridge under test: HTTP exchanges, and a server that is scripted line by
//! line.

use std::{sync::Arc, time::Duration};

use bridge::{Body, Bridge, Config, DropCounts, DropReason};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream},
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

/// A response whose head has arrived.
pub(crate) struct Reply {
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

pub(crate) async fn post(bridge: &Bridge, body: impl Into<Bytes>) -> Reply {
    send(bridge, Request::post("/mcp").body(body.into()).expect("a request")).await
}

pub(crate) async fn get(bridge: &Bridge) -> Reply {
    send(bridge, Request::get("/mcp").body(Bytes::new()).expect("a request")).await
}

/// Disconnects a stream and resumes it behind its last event.
pub(crate) async fn resume(bridge: &Bridge, reply: Reply) -> Reply {
    let id = reply.last_id.clone().expect("an event");
    drop(reply);
    resume_from(bridge, &id).await
}

pub(crate) async fn resume_from(bridge: &Bridge, id: &str) -> Reply {
    let request = Request::get("/mcp").header("Last-Event-ID", id);
    send(bridge, request.body(Bytes::new()).expect("a request")).await
}

pub(crate) async fn send(bridge: &Bridge, request: Request<Bytes>) -> Reply {
    let response = timeout(TEST_TIMEOUT, bridge.serve(request)).await.expect("a response");
    Reply {
        status: response.status(),
        response,
        buffered: String::new(),
        last_id: None,
    }
}

impl Reply {
    /// True if the response says that the server has not read the request.
    pub(crate) fn is_not_processed(&self) -> bool {
        self.response.extensions().get::<bridge::NotProcessed>().is_some()
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
    let (id, rest) = block.split_once('\n').expect("an id and more");
    let id = id.strip_prefix("id: ").expect("an id").to_owned();
    if rest == "retry: 1000\ndata: " {
        return (Sse::Prime, Some(id));
    }
    let line = rest
        .strip_prefix("event: message\ndata: ")
        .expect("an event of one data line");
    assert!(!line.contains(['\n', '\r']), "{line:?} is more than one line");
    (Sse::Message(line.to_owned()), Some(id))
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
