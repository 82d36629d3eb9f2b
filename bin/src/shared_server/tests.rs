//! Sessions over a byte stream against a scripted server: the exact requests, and unusual
//! responses.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bridge::Bridge;
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use session::ports::{BoxFuture, Credential, CredentialError, Credentials, UserId};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, EndpointConfig, PIPE_CAPACITY, SharedServerSession, pump};

const LIMIT: Duration = Duration::from_secs(30);
const MAX_MESSAGE: usize = 4096;

/// A request that the server received.
#[derive(Debug)]
struct Received {
    /// `POST /mcp HTTP/1.1`.
    line: String,
    /// In lower case, without `host`, `user-agent` and `content-length`, sorted.
    headers: Vec<String>,
    body: String,
}

/// A server that answers requests in order with scripted responses, and records the requests.
struct ScriptedServer {
    url: String,
    seen: mpsc::UnboundedReceiver<Received>,
    /// One permit for each response that waits for it.
    gate: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

/// A session under test, from the side of its bridge.
struct TestSession {
    script: ScriptedServer,
    stream: BufReader<DuplexStream>,
    credentials: Arc<Tokens>,
    session: Arc<SharedServerSession>,
    listeners: watch::Sender<usize>,
    closing: CancellationToken,
    pumping: JoinSet<()>,
}

/// Tokens with a number that each renewal raises.
#[derive(Debug, Default)]
struct Tokens {
    asked: AtomicU64,
    renewals: AtomicU64,
}

impl Credentials for Tokens {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let number = self.renewals.load(Ordering::Relaxed);
        Box::pin(async move {
            Ok(Credential {
                access_token: format!("token-{number}").into(),
                expires_at: SystemTime::UNIX_EPOCH,
            })
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        self.renewals.fetch_add(1, Ordering::Relaxed);
        self.current()
    }
}

impl ScriptedServer {
    /// Each response is the text after `HTTP/1.1 `; the connection closes after it. Those that are
    /// [`held`] wait for the gate.
    async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a script has an end")]
        let (record, seen) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(play(stream, Arc::clone(&answers), Arc::clone(&opened), record.clone()));
            }
        });
        Self {
            url,
            seen,
            gate,
            _serving: serving,
        }
    }

    async fn next(&mut self) -> Received {
        let seen = timeout(LIMIT, self.seen.recv()).await.expect("a request in time");
        seen.expect("the script goes on")
    }
}

async fn play(
    stream: TcpStream,
    answers: Arc<Mutex<VecDeque<String>>>,
    gate: Arc<Semaphore>,
    record: mpsc::UnboundedSender<Received>,
) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.unwrap();
        let header = header.trim_end();
        let Some((name, value)) = header.split_once(": ") else {
            break;
        };
        let name = name.to_lowercase();
        match name.as_str() {
            "content-length" => length = value.parse().unwrap(),
            "host" | "user-agent" => {}
            _ => headers.push(format!("{name}: {value}")),
        }
    }
    headers.sort();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let answer = answers.lock().unwrap().pop_front();
    let seen = Received {
        line: line.trim_end().to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
    };
    let asked: Value = serde_json::from_str(&seen.body).unwrap_or_default();
    let answer = answer.map(|answer| answer.replace(&format!("\"{ITS_ID}\""), &asked["id"].to_string()));
    let _ = record.send(seen);
    match answer {
        Some(answer) => {
            let answer = match answer.strip_prefix(HELD) {
                Some(answer) => {
                    gate.acquire().await.unwrap().forget();
                    format!("HTTP/1.1 {answer}")
                }
                None => format!("HTTP/1.1 {answer}"),
            };
            // The client may have closed the connection.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        // After the last response, connections stay open without one.
        None => std::future::pending().await,
    }
}

impl TestSession {
    async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let script = ScriptedServer::start(answers).await;
        let endpoint = Endpoint::new(EndpointConfig {
            url: script.url.parse().unwrap(),
            connect_timeout: LIMIT,
            max_message: MAX_MESSAGE,
            stop_grace: LIMIT,
        });
        let credentials = Arc::new(Tokens::default());
        let of_session: Arc<dyn Credentials> = Arc::<Tokens>::clone(&credentials);
        let config = bridge::Config::default();
        let user = UserId("alice".into());
        let session = SharedServerSession::new(Arc::new(endpoint.unwrap()), of_session, user, config, "tag".into());
        let (near, far) = duplex(PIPE_CAPACITY);
        let (listeners, listening) = watch::channel(0);
        let closing = CancellationToken::new();
        let mut pumping = JoinSet::new();
        pumping.spawn(pump(Arc::clone(&session), far, listening, closing.clone()));
        Self {
            script,
            stream: BufReader::new(near),
            credentials,
            session,
            listeners,
            closing,
            pumping,
        }
    }

    /// A session after its handshake; `answers` are the responses after that.
    async fn open(answers: impl IntoIterator<Item = String>) -> Self {
        let mut test = Self::start([opened("of-the-server")].into_iter().chain(answers)).await;
        test.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} }))
            .await;
        assert_eq!(test.receive().await["id"], 0);
        test.script.next().await;
        test
    }

    /// Gives the session a bridge with a snapshot of the handshake, which it can replay.
    async fn attach_bridge(&self) -> Arc<Bridge> {
        let (near, far) = duplex(PIPE_CAPACITY);
        let bridge = Arc::new(Bridge::connect(near, bridge::Config::default(), None).await.unwrap());
        let mut far = BufReader::new(far);
        let opening = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } },
        });
        let confirmation = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let server = async {
            let mut line = String::new();
            far.read_line(&mut line).await.unwrap();
            let asked: Value = serde_json::from_str(&line).unwrap();
            let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result() });
            far.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(bridge.serve(post(&opening)), server);
        assert_eq!(answer.status(), 200);
        assert_eq!(bridge.serve(post(&confirmation)).await.status(), 202);
        self.session.set_bridge(&bridge);
        bridge
    }

    async fn send(&mut self, message: &Value) {
        self.stream.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn ping(&mut self, id: u64) {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }))
            .await;
    }

    /// The next line, or `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(LIMIT, self.stream.read_line(&mut line))
            .await
            .expect("a line in time");
        (read.unwrap() > 0).then_some(line)
    }

    async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.line().await.expect("a line")).unwrap()
    }

    /// The message of the error response to this request.
    async fn error(&mut self, id: u64) -> String {
        let answer = self.receive().await;
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        answer["error"]["message"].as_str().expect("a message").to_owned()
    }

    fn renewals(&self) -> u64 {
        self.credentials.renewals.load(Ordering::Relaxed)
    }
}

/// Marks a response that waits for the gate.
const HELD: &str = "held: ";

fn held(answer: &str) -> String {
    format!("{HELD}{answer}")
}

fn result() -> Value {
    json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "test", "version": "1" } })
}

fn post(message: &Value) -> Request<Bytes> {
    Request::post("/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(Bytes::from(message.to_string()))
        .unwrap()
}

/// The placeholder for the id of the request.
const ITS_ID: &str = "(its id)";

/// The response to a handshake, with this session id. It has no `Content-Length`, since the length
/// of the id is not known.
fn opened(session: &str) -> String {
    let answer = json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": result() });
    format!(
        "200 OK\r\nMcp-Session-Id: {session}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{answer}"
    )
}

fn with_type(status: &str, kind: &str, body: &str) -> String {
    format!(
        "{status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn json(body: &str) -> String {
    with_type("200 OK", "application/json", body)
}

fn pong(id: u64) -> String {
    json(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#))
}

fn events(body: &str) -> String {
    with_type("200 OK", "text/event-stream", body)
}

fn status(status: &str) -> String {
    with_type(status, "text/plain", "no")
}

fn with_header(answer: &str, header: &str) -> String {
    answer.replacen("\r\n", &format!("\r\n{header}\r\n"), 1)
}

#[tokio::test]
async fn server_receives_only_the_message_and_the_session_headers() {
    let mut test = TestSession::start([
        with_header(
            &json(r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#),
            "Mcp-Session-Id: of-the-server",
        ),
        with_type("202 Accepted", "text/plain", ""),
        pong(1),
    ])
    .await;
    let opening = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
    test.send(&opening).await;
    assert_eq!(test.receive().await["result"]["protocolVersion"], "2025-06-18");
    let seen = test.script.next().await;
    assert_eq!(seen.line, "POST /mcp HTTP/1.1");
    assert_eq!(seen.body, opening.to_string());
    let always = [
        "accept: application/json, text/event-stream",
        "authorization: Bearer token-0",
        "content-type: application/json",
    ];
    assert_eq!(seen.headers, always);

    test.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
        .await;
    test.ping(1).await;
    assert_eq!(test.receive().await["id"], 1);
    let of_session = ["mcp-protocol-version: 2025-06-18", "mcp-session-id: of-the-server"];
    for method in ["notifications/initialized", "ping"] {
        let seen = test.script.next().await;
        assert!(seen.body.contains(method), "in order: {}", seen.body);
        assert_eq!(seen.headers, [&always[..], &of_session[..]].concat());
    }

    test.closing.cancel();
    let seen = test.script.next().await;
    assert_eq!(seen.line, "DELETE /mcp HTTP/1.1");
    assert_eq!(
        seen.headers[1..],
        ["authorization: Bearer token-0", of_session[0], of_session[1]]
    );
}

#[tokio::test]
async fn response_of_many_lines_becomes_one_line() {
    let mut test = TestSession::open([json(
        "{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": 1,\n  \"result\": {}\n}\n",
    )])
    .await;
    test.ping(1).await;
    assert_eq!(test.receive().await, json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
}

#[tokio::test]
async fn invalid_response_is_an_error_of_its_request() {
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(MAX_MESSAGE));
    let event = format!("data: {long}\n\n");
    for (answer, expected) in [
        (pong(2), "invalid response"),
        (json("nonsense"), "invalid response"),
        (with_type("200 OK", "text/html", "<p>"), "invalid response"),
        (with_type("202 Accepted", "text/plain", ""), "invalid response"),
        (json(&long), "too long"),
        (events(&event), "too long"),
        (events("data: {}\n\n"), "broke off"),
        (
            "200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{".to_owned(),
            "broke off",
        ),
        (status("500 Oops"), "refused"),
        (status("302 Found\r\nLocation: http://127.0.0.1:1/"), "refused"),
        (json("[]").replace("200 OK", "400 Bad Request"), "refused"),
        (String::new(), "cannot be reached"),
    ] {
        let mut test = TestSession::open([answer.clone()]).await;
        test.ping(1).await;
        let mut said = test.receive().await;
        if said.get("id").is_none() {
            // An earlier message of the stream.
            said = test.receive().await;
        }
        let message = said["error"]["message"].as_str().unwrap_or_default();
        assert!(said["id"] == 1 && message.contains(expected), "{said} for {answer}");
    }
}

#[tokio::test]
async fn jsonrpc_error_of_the_server_passes_with_any_status() {
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"its own words"}}"#;
    let mut test = TestSession::open([json(error).replace("200 OK", "400 Bad Request")]).await;
    test.ping(1).await;
    assert_eq!(test.receive().await["error"]["message"], "its own words");
}

#[tokio::test]
async fn failed_handshake_ends_the_stream() {
    for answer in [status("503 Later"), status("404 Not Found"), status("401 Unauthorized")] {
        let twice = [answer.clone(), answer.clone()];
        let mut test = TestSession::start(twice).await;
        test.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" }))
            .await;
        assert_eq!(test.line().await, None, "{answer}");
        test.pumping.join_next().await.unwrap().unwrap();
    }
    // A JSON-RPC error of the server is the response to the handshake.
    let refusal = json(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#);
    let mut test = TestSession::start([refusal]).await;
    test.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" }))
        .await;
    assert_eq!(test.receive().await["error"]["message"], "no");
}

#[tokio::test]
async fn refused_token_is_renewed_at_most_once_a_minute() {
    let refused = "401 Unauthorized";
    let mut test = TestSession::open([status(refused), pong(1), status(refused)]).await;
    test.ping(1).await;
    assert_eq!(test.receive().await["id"], 1);
    test.ping(2).await;
    assert!(test.error(2).await.contains("does not accept"));
    assert_eq!(test.renewals(), 1);
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(test.script.next().await.headers[1].clone());
    }
    let bearer = |number: u32| format!("authorization: Bearer token-{number}");
    assert_eq!(tokens, [bearer(0), bearer(1), bearer(1)]);

    // DELETE has the token that was sent last, and asks for none.
    let asked = test.credentials.asked.load(Ordering::Relaxed);
    test.closing.cancel();
    let delete = test.script.next().await;
    assert_eq!(
        (delete.line.as_str(), &delete.headers[1]),
        ("DELETE /mcp HTTP/1.1", &bearer(1))
    );
    assert_eq!(test.credentials.asked.load(Ordering::Relaxed), asked);
}

#[tokio::test]
async fn stream_that_ends_early_is_resumed_after_its_last_event() {
    let mut test = TestSession::open([
        events("id: 1\nretry: 1\ndata:\n\nid: 2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n"),
        events("id: 3\ndata: {\"jsonrpc\":\"2.0\",\n data: 1}\n\n"),
        events("id: 4\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\ndata: \"result\":{}}\n\n"),
    ])
    .await;
    test.ping(1).await;
    assert_eq!(test.receive().await["method"], "notifications/x");
    let odd = test.line().await.unwrap();
    assert!(
        serde_json::from_str::<Value>(&odd).is_err(),
        "the bridge checks the content: {odd}"
    );
    assert_eq!(test.receive().await["id"], 1);
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
    for last in ["2", "3"] {
        let seen = test.script.next().await;
        assert_eq!(seen.line, "GET /mcp HTTP/1.1");
        assert!(seen.headers.contains(&format!("last-event-id: {last}")), "{seen:?}");
        assert!(
            seen.headers.contains(&"accept: text/event-stream".to_owned()),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn server_request_within_a_stream_gets_the_response_of_the_client() {
    let ping = r#"{"jsonrpc":"2.0","id":"s1","method":"elicitation/create","params":{}}"#;
    let mut test = TestSession::open([
        // The script has no further response: the next two requests may arrive in either order.
        events(&format!("id: 1\nretry: 1\ndata: {ping}\n\n")),
    ])
    .await;
    test.ping(1).await;
    assert_eq!(test.receive().await["method"], "elicitation/create");
    let answer = json!({ "jsonrpc": "2.0", "id": "s1", "result": { "action": "accept" } });
    test.send(&answer).await;
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
    let mut rest = [test.script.next().await, test.script.next().await];
    rest.sort_by(|one, other| one.line.cmp(&other.line));
    assert_eq!(rest[0].line, "GET /mcp HTTP/1.1");
    assert_eq!(rest[1].body, answer.to_string());
}

#[tokio::test]
async fn resumptions_of_a_stream_are_limited() {
    let primed = "id: 1\nretry: 1\ndata:\n\n";
    let mut test = TestSession::open(std::iter::repeat_n(events(primed), 20)).await;
    test.ping(1).await;
    assert!(test.error(1).await.contains("broke off"));
}

#[tokio::test]
async fn server_messages_are_read_only_while_a_client_listens() {
    let heard = "id: 1\nretry: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
    let mut test = TestSession::open([events(heard), status("405 Method Not Allowed"), pong(1)]).await;
    test.listeners.send_replace(1);
    assert_eq!(test.receive().await["method"], "notifications/x");
    assert_eq!(test.script.next().await.line, "GET /mcp HTTP/1.1");
    // The stream has ended and is resumed; then the server answers that there is none.
    assert!(
        test.script
            .next()
            .await
            .headers
            .contains(&"last-event-id: 1".to_owned())
    );
    test.listeners.send_replace(0);
    test.listeners.send_replace(1);
    test.ping(1).await;
    assert_eq!(test.receive().await["id"], 1);
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
}

#[tokio::test]
async fn forbidden_request_renews_no_token() {
    let mut test = TestSession::open([status("403 Forbidden"), pong(2)]).await;
    test.ping(1).await;
    assert!(test.error(1).await.contains("does not accept"));
    test.ping(2).await;
    assert_eq!(test.receive().await["id"], 2);
    assert_eq!(test.renewals(), 0);
}

#[tokio::test]
async fn polling_continues_while_event_ids_progress() {
    let silent = (1..=7).map(|n| events(&format!("id: {n}\nretry: 0\ndata:\n\n")));
    let mut test =
        TestSession::open(silent.chain([events("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n")])).await;
    test.ping(1).await;
    assert_eq!(test.receive().await["result"], json!({}));
}

#[tokio::test]
async fn empty_listening_stream_is_reopened_more_slowly_each_time() {
    let silent = events(": nothing\nretry: 0\n\n");
    let mut test = TestSession::open([silent.clone(), silent, status("405 Method Not Allowed")]).await;
    test.listeners.send_replace(1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        test.script.next().await;
        seen.push(Instant::now());
    }
    // The pause is at least half a second, and doubles with each end without an event.
    assert!(seen[2] - seen[0] >= Duration::from_secs(2), "{:?}", seen[2] - seen[0]);
}

#[tokio::test]
async fn event_ids_of_another_session_are_not_resumed() {
    let heard = "id: 7\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
    let mut test = TestSession::open([
        events(heard),
        status("404 Not Found"),
        opened("another"),
        with_type("202 Accepted", "text/plain", ""),
        events(heard),
        status("400 Bad Request"),
        status("405 Method Not Allowed"),
    ])
    .await;
    let _bridge = test.attach_bridge().await;
    test.listeners.send_replace(1);
    let mut seen = Vec::new();
    for _ in 0..7 {
        let request = test.script.next().await;
        let header = |name: &str| {
            let header = request.headers.iter().find_map(|header| header.strip_prefix(name));
            header.unwrap_or_default().to_owned()
        };
        seen.push((
            request.line[..4].trim_end().to_owned(),
            header("mcp-session-id: "),
            header("last-event-id: "),
        ));
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|(line, session, id)| (&line[..], &session[..], &id[..]))
        .collect();
    let expected = [
        ("GET", "of-the-server", ""),
        ("GET", "of-the-server", "7"),
        ("POST", "", ""),
        ("POST", "another", ""),
        // Started again in the new session, and again after a refusal.
        ("GET", "another", ""),
        ("GET", "another", "7"),
        ("GET", "another", ""),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn reopening_completes_after_its_request_is_cancelled() {
    let accepted = with_type("202 Accepted", "text/plain", "");
    let mut test = TestSession::open([
        status("404 Not Found"),
        held(&opened("another")),
        accepted.clone(),
        status("404 Not Found"),
        // The response to `notifications/initialized`.
        accepted,
        pong(2),
    ])
    .await;
    let _bridge = test.attach_bridge().await;
    test.ping(1).await;
    assert!(test.script.next().await.body.contains("ping"));
    assert!(test.script.next().await.body.contains("initialize"));
    test.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }))
        .await;
    assert!(test.error(1).await.contains("cancelled"));
    assert!(test.script.next().await.body.contains("cancelled"));
    // This request still has the old session id, and joins the reopening in progress.
    test.ping(2).await;
    assert!(test.script.next().await.body.contains("ping"));
    test.script.gate.add_permits(1);
    assert_eq!(test.receive().await["id"], 2);
    assert!(test.script.next().await.body.contains("notifications/initialized"));
    assert!(test.script.next().await.body.contains("ping"));
    test.closing.cancel();
    let delete = test.script.next().await;
    assert_eq!(delete.line, "DELETE /mcp HTTP/1.1");
    assert!(
        delete.headers.contains(&"mcp-session-id: another".to_owned()),
        "{delete:?}"
    );
}

#[tokio::test]
async fn slow_notification_does_not_delay_requests() {
    let accepted = with_type("202 Accepted", "text/plain", "");
    let mut test = TestSession::open([held(&accepted), pong(1), held(&pong(2)), accepted]).await;
    test.send(&json!({ "jsonrpc": "2.0", "method": "notifications/x" }))
        .await;
    assert!(test.script.next().await.body.contains("notifications/x"));
    test.ping(1).await;
    assert_eq!(test.receive().await["id"], 1);
    test.script.next().await;
    test.ping(2).await;
    test.script.next().await;
    // The request ends at once; the server receives the cancellation later: messages keep their
    // order.
    test.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } }))
        .await;
    assert!(test.error(2).await.contains("cancelled"));
    assert!(test.script.seen.is_empty());
    test.script.gate.add_permits(2);
    assert!(test.script.next().await.body.contains("notifications/cancelled"));
}

#[tokio::test]
async fn tls_connections_offer_only_http_1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = EndpointConfig {
        url: format!("https://{}/mcp", listener.local_addr().unwrap())
            .parse()
            .unwrap(),
        connect_timeout: LIMIT,
        max_message: MAX_MESSAGE,
        stop_grace: LIMIT,
    };
    let endpoint = Endpoint::new(config).unwrap();
    let hello = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // RFC 8446, section 5.1: a record has its length in the last two of the first five bytes.
        let mut head = [0; 5];
        stream.read_exact(&mut head).await.unwrap();
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut record).await.unwrap();
        record
    };
    let (record, probed) = tokio::join!(hello, endpoint.probe());
    probed.unwrap_err();
    // RFC 7301, section 3.1: each protocol name follows its length.
    let offers = |name: &[u8]| record.windows(name.len()).any(|window| window == name);
    assert!(!offers(b"\x02h2"));
}

#[tokio::test]
async fn lost_session_ends_the_stream() {
    // Without a bridge there is no snapshot to replay.
    let mut test = TestSession::open([status("404 Not Found")]).await;
    test.ping(1).await;
    assert!(test.error(1).await.contains("forgotten"));
    assert_eq!(test.line().await, None);
}
