//! Links over a byte stream, against a server that a script plays: what exactly is sent, and what becomes of odd answers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use session::ports::{BoxFuture, Credential, CredentialError, Credentials};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
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
    _serving: JoinSet<()>,
}

/// A link under test, as its bridge sees it.
struct Rig {
    script: Script,
    stream: BufReader<DuplexStream>,
    credentials: Arc<Tokens>,
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
    /// Each answer is what stands behind `HTTP/1.1 `; the connection ends with it.
    async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a script has an end")]
        let (tell, seen) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(play(stream, Arc::clone(&answers), tell.clone()));
            }
        });
        Self {
            url,
            seen,
            _serving: serving,
        }
    }

    async fn next(&mut self) -> Seen {
        let seen = timeout(LIMIT, self.seen.recv()).await.expect("a request in time");
        seen.expect("the script goes on")
    }
}

async fn play(stream: TcpStream, answers: Arc<Mutex<VecDeque<String>>>, tell: mpsc::UnboundedSender<Seen>) {
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
    let _ = tell.send(seen);
    match answer {
        Some(answer) => {
            let answer = format!("HTTP/1.1 {answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
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
        let link = Link::new(Arc::new(endpoint.unwrap()), of_link, config, "tag".into());
        let (near, far) = duplex(PIPE);
        let (listeners, listening) = watch::channel(0);
        let closing = CancellationToken::new();
        let mut carrying = JoinSet::new();
        carrying.spawn(carry(link, far, listening, closing.clone()));
        Self {
            script,
            stream: BufReader::new(near),
            credentials,
            listeners,
            closing,
            carrying,
        }
    }

    /// A link whose handshake is done; `answers` are those after it.
    async fn open(answers: impl IntoIterator<Item = String>) -> Self {
        let granted = json(r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}"#);
        let granted = with_header(&granted, "Mcp-Session-Id: of-the-server");
        let mut rig = Self::start([granted].into_iter().chain(answers)).await;
        rig.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} }))
            .await;
        assert_eq!(rig.hear().await["id"], 0);
        rig.script.next().await;
        rig
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
    for refused in ["401 Unauthorized", "403 Forbidden"] {
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
async fn a_session_that_is_lost_ends_the_stream() {
    // There is no bridge that could tell the handshake anew.
    let mut rig = Rig::open([status("404 Not Found")]).await;
    rig.ask(1).await;
    assert!(rig.error(1).await.contains("forgotten"));
    assert_eq!(rig.line().await, None);
}
