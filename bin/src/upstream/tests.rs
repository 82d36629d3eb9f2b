//! Links over a byte stream, against a server that a script plays: what exactly is sent, and what becomes of odd answers.

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

use super::{Endpoint, EndpointConfig, Link, PIPE, carry};

const LIMIT: Duration = Duration::from_secs(30);
const MAX_MESSAGE: usize = 4096;

/// A request as the server saw it.
#[derive(Debug)]
struct Seen {
    /// `POST /mcp HTTP/1.1`.
    line: String,
    /// In lower case, without `host`, `user-agent` and `content-length`, sorted.
    headers: Vec<String>,
    body: String,
}

/// A server that answers one request after the other with what it was told, and tells what it was asked.
struct Script {
    url: String,
    seen: mpsc::UnboundedReceiver<Seen>,
    /// Lets as many answers go as it has permits of those that wait for it.
    gate: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

/// A link under test, as its bridge sees it.
struct Rig {
    script: Script,
    stream: BufReader<DuplexStream>,
    credentials: Arc<Tokens>,
    link: Arc<Link>,
    listeners: watch::Sender<usize>,
    closing: CancellationToken,
    carrying: JoinSet<()>,
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

impl Script {
    /// Each answer is what stands behind `HTTP/1.1 `; the connection ends with it. Those that are [`held`] wait for the gate.
    async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a script has an end")]
        let (tell, seen) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(play(stream, Arc::clone(&answers), Arc::clone(&opened), tell.clone()));
            }
        });
        Self {
            url,
            seen,
            gate,
            _serving: serving,
        }
    }

    async fn next(&mut self) -> Seen {
        let seen = timeout(LIMIT, self.seen.recv()).await.expect("a request in time");
        seen.expect("the script goes on")
    }
}

async fn play(
    stream: TcpStream,
    answers: Arc<Mutex<VecDeque<String>>>,
    gate: Arc<Semaphore>,
    tell: mpsc::UnboundedSender<Seen>,
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
    let seen = Seen {
        line: line.trim_end().to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
    };
    let asked: Value = serde_json::from_str(&seen.body).unwrap_or_default();
    let answer = answer.map(|answer| answer.replace(&format!("\"{ITS_ID}\""), &asked["id"].to_string()));
    let _ = tell.send(seen);
    match answer {
        Some(answer) => {
            let answer = match answer.strip_prefix(HELD) {
                Some(answer) => {
                    gate.acquire().await.unwrap().forget();
                    format!("HTTP/1.1 {answer}")
                }
                None => format!("HTTP/1.1 {answer}"),
            };
            // Who asked may have hung up meanwhile.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        // The script is over: nobody answers, and the connection stays.
        None => std::future::pending().await,
    }
}

impl Rig {
    async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let script = Script::start(answers).await;
        let endpoint = Endpoint::new(EndpointConfig {
            url: script.url.parse().unwrap(),
            connect_timeout: LIMIT,
            max_message: MAX_MESSAGE,
            stop_grace: LIMIT,
        });
        let credentials = Arc::new(Tokens::default());
        let of_link: Arc<dyn Credentials> = Arc::<Tokens>::clone(&credentials);
        let config = bridge::Config::default();
        let user = UserId("alice".into());
        let link = Link::new(Arc::new(endpoint.unwrap()), of_link, user, config, "tag".into());
        let (near, far) = duplex(PIPE);
        let (listeners, listening) = watch::channel(0);
        let closing = CancellationToken::new();
        let mut carrying = JoinSet::new();
        carrying.spawn(carry(Arc::clone(&link), far, listening, closing.clone()));
        Self {
            script,
            stream: BufReader::new(near),
            credentials,
            link,
            listeners,
            closing,
            carrying,
        }
    }

    /// A link whose handshake is done; `answers` are those after it.
    async fn open(answers: impl IntoIterator<Item = String>) -> Self {
        let mut rig = Self::start([granted("of-the-server")].into_iter().chain(answers)).await;
        rig.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} }))
            .await;
        assert_eq!(rig.hear().await["id"], 0);
        rig.script.next().await;
        rig
    }

    /// Gives the link a bridge with a record of the handshake, which it can tell the server anew.
    async fn remember(&self) -> Arc<Bridge> {
        let (near, far) = duplex(PIPE);
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
        self.link.serves(&bridge);
        bridge
    }

    async fn say(&mut self, message: &Value) {
        self.stream.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, id: u64) {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })).await;
    }

    /// The next line, or `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(LIMIT, self.stream.read_line(&mut line))
            .await
            .expect("a line in time");
        (read.unwrap() > 0).then_some(line)
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.line().await.expect("a line")).unwrap()
    }

    /// The message of the error that answers this request.
    async fn error(&mut self, id: u64) -> String {
        let answer = self.hear().await;
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        answer["error"]["message"].as_str().expect("a message").to_owned()
    }

    fn renewals(&self) -> u64 {
        self.credentials.renewals.load(Ordering::Relaxed)
    }
}

/// Marks an answer that waits for the gate.
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

/// What the id of the request is written into.
const ITS_ID: &str = "(its id)";

/// The answer to a handshake, with this session id. Its length is not told, since that of the id is not known.
fn granted(session: &str) -> String {
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
async fn the_server_is_sent_the_message_and_the_headers_of_the_link_and_no_others() {
    let mut rig = Rig::start([
        with_header(
            &json(r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#),
            "Mcp-Session-Id: of-the-server",
        ),
        with_type("202 Accepted", "text/plain", ""),
        pong(1),
    ])
    .await;
    let opening = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
    rig.say(&opening).await;
    assert_eq!(rig.hear().await["result"]["protocolVersion"], "2025-06-18");
    let seen = rig.script.next().await;
    assert_eq!(seen.line, "POST /mcp HTTP/1.1");
    assert_eq!(seen.body, opening.to_string());
    let always = [
        "accept: application/json, text/event-stream",
        "authorization: Bearer token-0",
        "content-type: application/json",
    ];
    assert_eq!(seen.headers, always);

    rig.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
        .await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await["id"], 1);
    let of_session = ["mcp-protocol-version: 2025-06-18", "mcp-session-id: of-the-server"];
    for method in ["notifications/initialized", "ping"] {
        let seen = rig.script.next().await;
        assert!(seen.body.contains(method), "in order: {}", seen.body);
        assert_eq!(seen.headers, [&always[..], &of_session[..]].concat());
    }

    rig.closing.cancel();
    let seen = rig.script.next().await;
    assert_eq!(seen.line, "DELETE /mcp HTTP/1.1");
    assert_eq!(
        seen.headers[1..],
        ["authorization: Bearer token-0", of_session[0], of_session[1]]
    );
}

#[tokio::test]
async fn an_answer_of_many_lines_is_one_line() {
    let mut rig = Rig::open([json(
        "{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": 1,\n  \"result\": {}\n}\n",
    )])
    .await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await, json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_for_its_request() {
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(MAX_MESSAGE));
    let event = format!("data: {long}\n\n");
    for (answer, expected) in [
        (pong(2), "no answer"),
        (json("nonsense"), "no answer"),
        (with_type("200 OK", "text/html", "<p>"), "no answer"),
        (with_type("202 Accepted", "text/plain", ""), "no answer"),
        (json(&long), "too long"),
        (events(&event), "too long"),
        (events("data: {}\n\n"), "broken off"),
        (
            "200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{".to_owned(),
            "broken off",
        ),
        (status("500 Oops"), "refused"),
        (status("302 Found\r\nLocation: http://127.0.0.1:1/"), "refused"),
        (json("[]").replace("200 OK", "400 Bad Request"), "refused"),
        (String::new(), "cannot be reached"),
    ] {
        let mut rig = Rig::open([answer.clone()]).await;
        rig.ask(1).await;
        let mut said = rig.hear().await;
        if said.get("id").is_none() {
            // Whatever came before it on the stream.
            said = rig.hear().await;
        }
        let message = said["error"]["message"].as_str().unwrap_or_default();
        assert!(said["id"] == 1 && message.contains(expected), "{said} for {answer}");
    }
}

#[tokio::test]
async fn an_error_of_the_server_for_the_request_passes_whatever_its_status() {
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"its own words"}}"#;
    let mut rig = Rig::open([json(error).replace("200 OK", "400 Bad Request")]).await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await["error"]["message"], "its own words");
}

#[tokio::test]
async fn a_handshake_that_cannot_be_made_ends_the_stream() {
    for answer in [status("503 Later"), status("404 Not Found"), status("401 Unauthorized")] {
        let twice = [answer.clone(), answer.clone()];
        let mut rig = Rig::start(twice).await;
        rig.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" }))
            .await;
        assert_eq!(rig.line().await, None, "{answer}");
        rig.carrying.join_next().await.unwrap().unwrap();
    }
    // An error of the server itself is its answer.
    let refusal = json(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#);
    let mut rig = Rig::start([refusal]).await;
    rig.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" }))
        .await;
    assert_eq!(rig.hear().await["error"]["message"], "no");
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_a_minute_at_most() {
    let refused = "401 Unauthorized";
    let mut rig = Rig::open([status(refused), pong(1), status(refused)]).await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await["id"], 1);
    rig.ask(2).await;
    assert!(rig.error(2).await.contains("does not accept"));
    assert_eq!(rig.renewals(), 1);
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(rig.script.next().await.headers[1].clone());
    }
    let bearer = |number: u32| format!("authorization: Bearer token-{number}");
    assert_eq!(tokens, [bearer(0), bearer(1), bearer(1)]);

    // The goodbye has the token that was used last, and none is asked for.
    let asked = rig.credentials.asked.load(Ordering::Relaxed);
    rig.closing.cancel();
    let goodbye = rig.script.next().await;
    assert_eq!(
        (goodbye.line.as_str(), &goodbye.headers[1]),
        ("DELETE /mcp HTTP/1.1", &bearer(1))
    );
    assert_eq!(rig.credentials.asked.load(Ordering::Relaxed), asked);
}

#[tokio::test]
async fn a_stream_that_ends_early_is_gone_on_with_behind_its_last_event() {
    let mut rig = Rig::open([
        events("id: 1\nretry: 1\ndata:\n\nid: 2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n"),
        events("id: 3\ndata: {\"jsonrpc\":\"2.0\",\n data: 1}\n\n"),
        events("id: 4\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\ndata: \"result\":{}}\n\n"),
    ])
    .await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await["method"], "notifications/x");
    let odd = rig.line().await.unwrap();
    assert!(
        serde_json::from_str::<Value>(&odd).is_err(),
        "what it says is the bridge's business: {odd}"
    );
    assert_eq!(rig.hear().await["id"], 1);
    assert_eq!(rig.script.next().await.line, "POST /mcp HTTP/1.1");
    for last in ["2", "3"] {
        let seen = rig.script.next().await;
        assert_eq!(seen.line, "GET /mcp HTTP/1.1");
        assert!(seen.headers.contains(&format!("last-event-id: {last}")), "{seen:?}");
        assert!(
            seen.headers.contains(&"accept: text/event-stream".to_owned()),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn the_server_asks_the_client_within_a_request_and_gets_its_answer() {
    let ask = r#"{"jsonrpc":"2.0","id":"s1","method":"elicitation/create","params":{}}"#;
    let mut rig = Rig::open([
        // The script has no answer to what comes next: whichever of the two is first, the other is seen as well.
        events(&format!("id: 1\nretry: 1\ndata: {ask}\n\n")),
    ])
    .await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await["method"], "elicitation/create");
    let answer = json!({ "jsonrpc": "2.0", "id": "s1", "result": { "action": "accept" } });
    rig.say(&answer).await;
    assert_eq!(rig.script.next().await.line, "POST /mcp HTTP/1.1");
    let mut rest = [rig.script.next().await, rig.script.next().await];
    rest.sort_by(|one, other| one.line.cmp(&other.line));
    assert_eq!(rest[0].line, "GET /mcp HTTP/1.1");
    assert_eq!(rest[1].body, answer.to_string());
}

#[tokio::test]
async fn a_stream_is_not_asked_for_again_for_ever() {
    let primed = "id: 1\nretry: 1\ndata:\n\n";
    let mut rig = Rig::open(std::iter::repeat_n(events(primed), 20)).await;
    rig.ask(1).await;
    assert!(rig.error(1).await.contains("broken off"));
}

#[tokio::test]
async fn nobody_is_heard_unless_somebody_listens() {
    let heard = "id: 1\nretry: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
    let mut rig = Rig::open([events(heard), status("405 Method Not Allowed"), pong(1)]).await;
    rig.listeners.send_replace(1);
    assert_eq!(rig.hear().await["method"], "notifications/x");
    assert_eq!(rig.script.next().await.line, "GET /mcp HTTP/1.1");
    // It has ended, and is gone on with; then the server says that there is none.
    assert!(rig.script.next().await.headers.contains(&"last-event-id: 1".to_owned()));
    rig.listeners.send_replace(0);
    rig.listeners.send_replace(1);
    rig.ask(1).await;
    assert_eq!(rig.hear().await["id"], 1);
    assert_eq!(rig.script.next().await.line, "POST /mcp HTTP/1.1");
}

#[tokio::test]
async fn a_token_that_may_not_do_it_is_not_renewed() {
    let mut rig = Rig::open([status("403 Forbidden"), pong(2)]).await;
    rig.ask(1).await;
    assert!(rig.error(1).await.contains("does not accept"));
    rig.ask(2).await;
    assert_eq!(rig.hear().await["id"], 2);
    assert_eq!(rig.renewals(), 0);
}

#[tokio::test]
async fn a_server_may_have_its_client_poll_as_long_as_events_go_on() {
    let silent = (1..=7).map(|n| events(&format!("id: {n}\nretry: 0\ndata:\n\n")));
    let mut rig = Rig::open(silent.chain([events("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n")])).await;
    rig.ask(1).await;
    assert_eq!(rig.hear().await["result"], json!({}));
}

#[tokio::test]
async fn a_stream_that_brings_nothing_is_asked_for_ever_more_slowly() {
    let silent = events(": nothing\nretry: 0\n\n");
    let mut rig = Rig::open([silent.clone(), silent, status("405 Method Not Allowed")]).await;
    rig.listeners.send_replace(1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        rig.script.next().await;
        seen.push(Instant::now());
    }
    // Half a second is the least; each end without an event doubles it.
    assert!(seen[2] - seen[0] >= Duration::from_secs(2), "{:?}", seen[2] - seen[0]);
}

#[tokio::test]
async fn an_event_of_another_session_is_not_gone_on_with() {
    let heard = "id: 7\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
    let mut rig = Rig::open([
        events(heard),
        status("404 Not Found"),
        granted("another"),
        with_type("202 Accepted", "text/plain", ""),
        events(heard),
        status("400 Bad Request"),
        status("405 Method Not Allowed"),
    ])
    .await;
    let _bridge = rig.remember().await;
    rig.listeners.send_replace(1);
    let mut seen = Vec::new();
    for _ in 0..7 {
        let request = rig.script.next().await;
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
        // Begun anew in the new session, and again after a refusal.
        ("GET", "another", ""),
        ("GET", "another", "7"),
        ("GET", "another", ""),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_session_is_opened_anew_to_its_end_though_the_request_is_cancelled() {
    let accepted = with_type("202 Accepted", "text/plain", "");
    let mut rig = Rig::open([
        status("404 Not Found"),
        held(&granted("another")),
        accepted.clone(),
        status("404 Not Found"),
        // The confirmation of the handshake.
        accepted,
        pong(2),
    ])
    .await;
    let _bridge = rig.remember().await;
    rig.ask(1).await;
    assert!(rig.script.next().await.body.contains("ping"));
    assert!(rig.script.next().await.body.contains("initialize"));
    rig.say(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }))
        .await;
    assert!(rig.error(1).await.contains("cancelled"));
    assert!(rig.script.next().await.body.contains("cancelled"));
    // It still knows of the old session alone, and joins the opening that is under way.
    rig.ask(2).await;
    assert!(rig.script.next().await.body.contains("ping"));
    rig.script.gate.add_permits(1);
    assert_eq!(rig.hear().await["id"], 2);
    assert!(rig.script.next().await.body.contains("notifications/initialized"));
    assert!(rig.script.next().await.body.contains("ping"));
    rig.closing.cancel();
    let goodbye = rig.script.next().await;
    assert_eq!(goodbye.line, "DELETE /mcp HTTP/1.1");
    assert!(
        goodbye.headers.contains(&"mcp-session-id: another".to_owned()),
        "{goodbye:?}"
    );
}

#[tokio::test]
async fn a_message_that_the_server_is_slow_to_take_holds_nothing_back() {
    let accepted = with_type("202 Accepted", "text/plain", "");
    let mut rig = Rig::open([held(&accepted), pong(1), held(&pong(2)), accepted]).await;
    rig.say(&json!({ "jsonrpc": "2.0", "method": "notifications/x" })).await;
    assert!(rig.script.next().await.body.contains("notifications/x"));
    rig.ask(1).await;
    assert_eq!(rig.hear().await["id"], 1);
    rig.script.next().await;
    rig.ask(2).await;
    rig.script.next().await;
    // Ended at once, though the server is told later: messages keep their order.
    rig.say(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } }))
        .await;
    assert!(rig.error(2).await.contains("cancelled"));
    assert!(rig.script.seen.is_empty());
    rig.script.gate.add_permits(2);
    assert!(rig.script.next().await.body.contains("notifications/cancelled"));
}

#[tokio::test]
async fn a_server_behind_tls_is_offered_one_exchange_at_a_time_on_a_connection() {
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
    // RFC 7301, section 3.1: names of protocols stand behind their lengths.
    let offers = |name: &[u8]| record.windows(name.len()).any(|window| window == name);
    assert!(!offers(b"\x02h2"));
}

#[tokio::test]
async fn a_session_that_is_lost_ends_the_stream() {
    // There is no bridge that could tell the handshake anew.
    let mut rig = Rig::open([status("404 Not Found")]).await;
    rig.ask(1).await;
    assert!(rig.error(1).await.contains("forgotten"));
    assert_eq!(rig.line().await, None);
}
