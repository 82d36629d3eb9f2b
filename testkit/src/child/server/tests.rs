//! The double over in-memory pipes, before a fake Forgejo.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{DuplexStream, Lines},
    time::timeout,
};

use super::*;
use crate::{
    child::run,
    forgejo::{FakeForgejo, Options as ForgejoOptions},
};

/// A double that runs, with the other ends of its streams.
struct Rig {
    stdin: Option<DuplexStream>,
    stdout: Lines<BufReader<DuplexStream>>,
    stderr: Stderr,
    terminate: CancellationToken,
    code: JoinSet<u8>,
    forgejo: FakeForgejo,
    token: String,
}

#[derive(Clone, Default)]
struct Stderr(Arc<Mutex<Vec<u8>>>);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stderr {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// How to start one.
struct Start {
    login: &'static str,
    token: Option<&'static str>,
    url: Option<&'static str>,
    test_tools: bool,
}

const ALICE: Start = Start {
    login: "alice",
    token: None,
    url: None,
    test_tools: true,
};

impl Rig {
    async fn start(start: Start) -> Self {
        let forgejo = FakeForgejo::start(ForgejoOptions::default()).await.unwrap();
        let token = forgejo.access_token(start.login, "read:user read:repository");
        let options = Options {
            url: start.url.unwrap_or(forgejo.url()).to_owned(),
            token: Some(start.token.unwrap_or(&token).to_owned()),
            test_tools: start.test_tools,
            environment: vec!["HOME".to_owned(), "PATH".to_owned()],
            http_port: None,
            strict: false,
        };
        let (stdin, child_stdin) = tokio::io::duplex(1 << 20);
        let (child_stdout, stdout) = tokio::io::duplex(1 << 20);
        let stderr = Stderr::default();
        let terminate = CancellationToken::new();
        let mut code = JoinSet::new();
        code.spawn(run(
            options,
            child_stdin,
            child_stdout,
            Box::new(stderr.clone()),
            terminate.clone(),
        ));
        let stdout = BufReader::new(stdout).lines();
        Self {
            stdin: Some(stdin),
            stdout,
            stderr,
            terminate,
            code,
            forgejo,
            token,
        }
    }

    async fn say(&mut self, line: &str) {
        self.stdin
            .as_mut()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn request(&mut self, id: i64, method: &str, params: Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())
            .await;
    }

    async fn call(&mut self, id: i64, tool: &str, arguments: Value) {
        self.request(id, "tools/call", json!({ "name": tool, "arguments": arguments }))
            .await;
    }

    /// The next line, or `None` at the end.
    async fn line(&mut self) -> Option<String> {
        timeout(Duration::from_secs(20), self.stdout.next_line())
            .await
            .expect("a line in time")
            .unwrap()
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.line().await.expect("a line")).unwrap()
    }

    async fn code(&mut self) -> u8 {
        timeout(Duration::from_secs(20), self.code.join_next())
            .await
            .expect("an end in time")
            .unwrap()
            .unwrap()
    }

    /// Whether it has ended.
    fn ended(&mut self) -> bool {
        self.code.try_join_next().is_some()
    }
}

/// The JSON inside a tool's text.
fn inner(message: &Value) -> Value {
    let text = message["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("no text in {message}"));
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn the_handshake_and_the_lists() {
    let mut rig = Rig::start(Start {
        test_tools: false,
        ..ALICE
    })
    .await;
    rig.request(1, "initialize", json!({ "protocolVersion": "2026-07-28" }))
        .await;
    let answer = rig.hear().await;
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(answer["result"]["capabilities"]["tools"]["listChanged"], true);
    rig.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    rig.request(2, "tools/list", json!({})).await;
    assert_eq!(rig.line().await.unwrap().len(), 90_470);
    rig.request(3, "resources/templates/list", json!({})).await;
    assert_eq!(rig.line().await.unwrap().len(), 7_003);
    rig.request(4, "server/discover", json!({})).await;
    assert_eq!(rig.hear().await["error"]["code"], -32601);
    rig.call(5, "test_echo", json!({})).await;
    assert_eq!(rig.hear().await["error"]["code"], -32602);
}

#[tokio::test]
async fn a_session_shows_whose_token_it_holds() {
    for login in ["alice", "bob"] {
        let mut rig = Rig::start(Start { login, ..ALICE }).await;
        rig.call(1, "get_my_user_info", json!({})).await;
        assert_eq!(inner(&rig.hear().await)["login"], login);
        rig.call(2, "list_my_repos", json!({})).await;
        assert!(inner(&rig.hear().await).is_array());
        rig.call(3, "get_forgejo_mcp_server_version", json!({})).await;
        assert_eq!(inner(&rig.hear().await)["version"], crate::child::VERSION);
    }
}

#[tokio::test]
async fn it_does_not_start_with_a_bad_token_a_bad_url_or_without_forgejo() {
    for start in [
        Start {
            token: Some("bad-token"),
            ..ALICE
        },
        Start {
            url: Some("nonsense"),
            ..ALICE
        },
        Start {
            url: Some("http://127.0.0.1:1"),
            ..ALICE
        },
    ] {
        let token = start.token;
        let mut rig = Rig::start(start).await;
        assert_eq!(rig.code().await, 1);
        assert_eq!(rig.line().await, None, "nothing on stdout");
        let said = rig.stderr.text();
        assert!(said.contains("ERROR"), "{said}");
        assert!(
            token.is_none_or(|token| said.contains(token)),
            "Forgejo's message repeats the token: {said}"
        );
    }
}

#[tokio::test]
async fn a_tool_that_fails_is_an_error_with_the_message_of_forgejo() {
    let mut rig = Rig::start(ALICE).await;
    rig.request(6, "ping", json!({})).await;
    rig.hear().await;
    rig.forgejo.revoke("alice");
    rig.call(7, "get_my_user_info", json!({})).await;
    let answer = rig.hear().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
    assert!(answer["error"]["message"].as_str().unwrap().contains(&rig.token));
    assert!(rig.stderr.text().contains(&rig.token));
    rig.request(8, "ping", json!({})).await;
    assert_eq!(rig.hear().await["result"], json!({}));
}

#[tokio::test]
async fn calls_are_answered_out_of_order_on_five_workers() {
    let mut rig = Rig::start(ALICE).await;
    rig.call(1, "test_sleep", json!({ "ms": 400 })).await;
    rig.call(2, "test_echo", json!({ "a": 1 })).await;
    assert_eq!(inner(&rig.hear().await), json!({ "a": 1 }));
    assert_eq!(rig.hear().await["id"], 1);

    for id in 1..=5 {
        rig.call(id, "test_sleep", json!({ "ms": 300 })).await;
    }
    rig.call(6, "test_echo", json!({})).await;
    rig.request(7, "ping", json!({})).await;
    let mut order = Vec::new();
    for _ in 0..7 {
        order.push(rig.hear().await["id"].as_i64().unwrap());
    }
    assert_eq!(order[0], 7, "other methods do not wait for a worker: {order:?}");
    assert_ne!(order[1], 6, "the sixth call waits for a worker: {order:?}");
}

#[tokio::test]
async fn a_stamp_says_who_took_the_call_before_it_is_answered() {
    let mut rig = Rig::start(ALICE).await;
    rig.call(
        1,
        "test_stamp",
        json!({ "mark": "a.1", "whose": true, "announce": true }),
    )
    .await;
    let said = json!({ "mark": "a.1", "pid": std::process::id() });
    let announced = rig.hear().await;
    assert_eq!(announced["method"], "notifications/message");
    assert_eq!(announced["params"]["data"], said);
    let answer = inner(&rig.hear().await);
    assert_eq!((&answer["mark"], &answer["pid"]), (&said["mark"], &said["pid"]));
    assert_eq!(answer["login"], "alice");
    let trace = format!("took a.1 pid={}\n", std::process::id());
    assert!(rig.stderr.text().contains(&trace));
}

#[tokio::test]
async fn cancellation_is_ignored() {
    let mut rig = Rig::start(ALICE).await;
    rig.call(1, "test_sleep", json!({ "ms": 50 })).await;
    rig.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    assert_eq!(rig.hear().await["id"], 1);
}

#[tokio::test]
async fn lines_that_are_no_message_are_answered_with_a_null_id() {
    let mut rig = Rig::start(ALICE).await;
    for line in ["", "[]", "nonsense"] {
        rig.say(line).await;
        let answer = rig.hear().await;
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&Value::Null, &json!(-32700)),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn a_line_of_five_megabytes_is_fine() {
    let mut rig = Rig::start(ALICE).await;
    let text = "x".repeat(5_000_000);
    let Rig { stdin, stdout, .. } = &mut rig;
    let line = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "test_echo", "arguments": { "text": text } } });
    let line = format!("{line}\n");
    let (written, answer) = tokio::join!(stdin.as_mut().unwrap().write_all(line.as_bytes()), stdout.next_line());
    written.unwrap();
    assert!(answer.unwrap().unwrap().len() > 5_000_000);
}

#[tokio::test]
async fn progress_comes_before_the_answer() {
    let mut rig = Rig::start(ALICE).await;
    let params = json!({ "name": "test_progress", "arguments": { "steps": 3 }, "_meta": { "progressToken": "t" } });
    rig.request(1, "tools/call", params).await;
    for step in 1..=3 {
        let message = rig.hear().await;
        assert_eq!(message["method"], "notifications/progress");
        assert_eq!(
            message["params"],
            json!({ "progressToken": "t", "progress": step, "total": 3 })
        );
    }
    assert_eq!(rig.hear().await["id"], 1);
}

#[tokio::test]
async fn the_environment_is_told_by_name_and_stderr_is_written_raw() {
    let mut rig = Rig::start(ALICE).await;
    rig.call(1, "test_environment", json!({})).await;
    assert_eq!(inner(&rig.hear().await), json!(["HOME", "PATH"]));
    rig.call(2, "test_stderr", json!({ "text": "hello stderr" })).await;
    rig.hear().await;
    assert!(rig.stderr.text().contains("\nhello stderr\n"));
}

#[tokio::test]
async fn an_exit_comes_at_once_and_without_an_answer() {
    let mut rig = Rig::start(ALICE).await;
    rig.call(1, "test_sleep", json!({ "ms": 60_000 })).await;
    rig.call(2, "test_exit", json!({ "code": 7 })).await;
    assert_eq!(rig.code().await, 7);
    assert_eq!(rig.line().await, None);
}

#[tokio::test]
async fn idle_it_ends_with_its_input_or_upon_sigterm() {
    let mut rig = Rig::start(ALICE).await;
    rig.stdin = None;
    assert_eq!(rig.code().await, 0);
    let mut rig = Rig::start(ALICE).await;
    rig.request(1, "ping", json!({})).await;
    rig.hear().await;
    rig.terminate.cancel();
    assert_eq!(rig.code().await, 0);
}

#[tokio::test]
async fn the_end_waits_for_a_call_that_is_under_way() {
    for by_signal in [false, true] {
        let mut rig = Rig::start(ALICE).await;
        rig.call(1, "test_sleep", json!({ "ms": 200 })).await;
        rig.request(2, "ping", json!({})).await;
        assert_eq!(rig.hear().await["id"], 2);
        if by_signal {
            rig.terminate.cancel();
        } else {
            rig.stdin = None;
        }
        tokio::task::yield_now().await;
        assert!(!rig.ended());
        assert_eq!(rig.hear().await["id"], 1);
        assert_eq!(rig.code().await, 0);
    }
}

#[tokio::test]
async fn it_ends_when_nobody_reads_its_answers() {
    let mut rig = Rig::start(ALICE).await;
    rig.request(1, "ping", json!({})).await;
    rig.hear().await;
    rig.stdout = BufReader::new(tokio::io::duplex(1).0).lines();
    rig.request(2, "ping", json!({})).await;
    assert_eq!(rig.code().await, 1);
}
