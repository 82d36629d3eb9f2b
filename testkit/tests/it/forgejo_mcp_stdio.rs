//! The double of `forgejo-mcp` as a process on standard streams: handshake, tools, order of
//! answers, and its end.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::forgejo::{FakeForgejo, Options};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);

struct Double {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: JoinSet<String>,
    forgejo: FakeForgejo,
    token: String,
}

impl Double {
    /// Starts the double for a user, with the tools for tests.
    async fn start(login: &str) -> Self {
        Self::start_with(login, |_| {}).await
    }

    async fn start_with(login: &str, change: impl FnOnce(&mut Command)) -> Self {
        let forgejo = FakeForgejo::start(Options::default()).await.unwrap();
        let token = forgejo.access_token(login, "read:user read:repository");
        // The double would inherit ignored signals, such as SIGHUP under nohup(1).
        let mut command = Command::new("/usr/bin/env");
        command
            .args([
                "--default-signal",
                env!("CARGO_BIN_EXE_fake-forgejo-mcp"),
                "--transport",
                "stdio",
            ])
            .env_clear()
            .env("FORGEJO_URL", forgejo.url())
            .env("FORGEJO_ACCESS_TOKEN", &token)
            .env("FAKE_FORGEJO_MCP_TEST_TOOLS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        change(&mut command);
        let mut process = command.spawn().unwrap();
        let mut stderr_pipe = process.stderr.take().unwrap();
        let mut stderr = JoinSet::new();
        stderr.spawn(async move {
            let mut text = String::new();
            stderr_pipe.read_to_string(&mut text).await.unwrap();
            text
        });
        Self {
            stdin: process.stdin.take(),
            stdout: process.stdout.take().map(|stdout| BufReader::new(stdout).lines()),
            stderr,
            process,
            forgejo,
            token,
        }
    }

    async fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn request(&mut self, id: i64, method: &str, params: Value) {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(&request.to_string()).await;
    }

    async fn call(&mut self, id: i64, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments });
        self.request(id, "tools/call", params).await;
    }

    /// The next line, or `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let line = timeout(LIMIT, self.stdout.as_mut().unwrap().next_line()).await;
        line.expect("a line in time").unwrap()
    }

    async fn message(&mut self) -> Value {
        serde_json::from_str(&self.line().await.expect("a line")).unwrap()
    }

    async fn result(&mut self) -> Value {
        let message = self.message().await;
        let text = message["result"]["content"][0]["text"].as_str();
        serde_json::from_str(text.unwrap_or_else(|| panic!("no text in {message}"))).unwrap()
    }

    async fn ping(&mut self) {
        self.request(99, "ping", json!({})).await;
        let pong = json!({ "jsonrpc": "2.0", "id": 99, "result": {} });
        assert_eq!(self.message().await, pong);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    async fn status(&mut self) -> ExitStatus {
        timeout(LIMIT, self.process.wait())
            .await
            .expect("an end in time")
            .unwrap()
    }

    async fn stderr(&mut self) -> String {
        self.stderr.join_next().await.unwrap().unwrap()
    }

    async fn end(&mut self) -> String {
        self.stdin = None;
        assert_eq!(self.status().await.code(), Some(0));
        self.stderr().await
    }
}

#[tokio::test]
async fn handshake_and_lists() {
    let mut double = Double::start_with("alice", |command| {
        command.env_remove("FAKE_FORGEJO_MCP_TEST_TOOLS");
    })
    .await;
    let params = json!({ "protocolVersion": "2026-07-28" });
    double.request(1, "initialize", params).await;
    let answer = double.message().await;
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(answer["result"]["capabilities"]["tools"]["listChanged"], true);
    double
        .send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    double.request(2, "tools/list", json!({})).await;
    assert_eq!(double.line().await.unwrap().len(), 90_470);
    double.request(3, "resources/templates/list", json!({})).await;
    assert_eq!(double.line().await.unwrap().len(), 7_003);
    double.request(4, "server/discover", json!({})).await;
    assert_eq!(double.message().await["error"]["code"], -32601);
    double.call(5, "test_echo", json!({})).await;
    assert_eq!(double.message().await["error"]["code"], -32602);
    assert_eq!(double.forgejo.counters().requests_to("/api/v1/version"), 2);
}

#[tokio::test]
async fn tools_show_the_user_of_the_token() {
    for login in ["alice", "bob"] {
        let mut double = Double::start(login).await;
        double.call(1, "get_my_user_info", json!({})).await;
        assert_eq!(double.result().await["login"], login);
        double.call(2, "list_my_repos", json!({})).await;
        assert!(double.result().await.is_array());
        double.call(3, "get_forgejo_mcp_server_version", json!({})).await;
        assert_eq!(double.result().await["version"], testkit::forgejo_mcp::VERSION);
    }
}

#[tokio::test]
async fn bad_token_bad_url_or_missing_forgejo_is_exit_1_with_the_reason_on_stderr_only() {
    for (variable, value) in [
        ("FORGEJO_ACCESS_TOKEN", "bad-token"),
        ("FORGEJO_URL", "nonsense"),
        ("FORGEJO_URL", "http://127.0.0.1:1"),
    ] {
        let mut double = Double::start_with("alice", |command| {
            command.env(variable, value);
        })
        .await;
        assert_eq!(double.status().await.code(), Some(1));
        assert_eq!(double.line().await, None, "nothing on stdout");
        let stderr = double.stderr().await;
        assert!(stderr.contains("ERROR"), "{stderr}");
        let echoed = value != "bad-token" || stderr.contains(value);
        assert!(echoed, "Forgejo's message repeats the token: {stderr}");
    }
}

#[tokio::test]
async fn failing_tool_is_an_error_with_forgejos_message() {
    let mut double = Double::start("alice").await;
    double.ping().await;
    double.forgejo.revoke("alice");
    double.call(7, "get_my_user_info", json!({})).await;
    let answer = double.message().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
    assert!(answer["error"]["message"].as_str().unwrap().contains(&double.token));
    double.ping().await;
    let token = double.token.clone();
    assert!(double.end().await.contains(&token));
}

#[tokio::test]
async fn calls_are_answered_out_of_order_on_five_workers() {
    let mut double = Double::start("alice").await;
    double.call(1, "test_sleep", json!({ "ms": 400 })).await;
    double.call(2, "test_echo", json!({ "a": 1 })).await;
    assert_eq!(double.result().await, json!({ "a": 1 }));
    assert_eq!(double.message().await["id"], 1);

    for id in 1..=5 {
        double.call(id, "test_sleep", json!({ "ms": 300 })).await;
    }
    double.call(6, "test_echo", json!({})).await;
    double.request(7, "ping", json!({})).await;
    let mut order = Vec::new();
    for _ in 0..7 {
        order.push(double.message().await["id"].as_i64().unwrap());
    }
    assert_eq!(order[0], 7, "other methods do not wait for a worker: {order:?}");
    assert_ne!(order[1], 6, "the sixth call waits for a worker: {order:?}");
}

#[tokio::test]
async fn stamp_identifies_the_process_of_a_call_before_its_answer() {
    let mut double = Double::start("alice").await;
    let pid = double.process.id().unwrap();
    let arguments = json!({ "mark": "a.1", "whose": true, "announce": true });
    double.call(1, "test_stamp", arguments).await;
    let announced = double.message().await;
    assert_eq!(announced["method"], "notifications/message");
    assert_eq!(announced["params"]["data"], json!({ "mark": "a.1", "pid": pid }));
    let expected = json!({ "mark": "a.1", "pid": pid, "login": "alice" });
    assert_eq!(double.result().await, expected);
    assert!(double.end().await.contains(&format!("took a.1 pid={pid}\n")));
}

#[tokio::test]
async fn cancellation_is_ignored() {
    let mut double = Double::start("alice").await;
    double.call(1, "test_sleep", json!({ "ms": 50 })).await;
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    double.send(&cancelled.to_string()).await;
    assert_eq!(double.message().await["id"], 1);
}

#[tokio::test]
async fn invalid_lines_are_answered_with_a_null_id() {
    let mut double = Double::start("alice").await;
    for line in ["", "[]", "nonsense"] {
        double.send(line).await;
        let answer = double.message().await;
        let (id, code) = (&answer["id"], &answer["error"]["code"]);
        assert_eq!((id, code), (&Value::Null, &json!(-32700)), "{line:?}");
    }
}

#[tokio::test]
async fn line_of_five_megabytes_is_accepted() {
    let mut double = Double::start("alice").await;
    let arguments = json!({ "text": "x".repeat(5_000_000) });
    double.call(1, "test_echo", arguments).await;
    assert!(double.line().await.unwrap().len() > 5_000_000);
}

#[tokio::test]
async fn progress_precedes_the_answer() {
    let mut double = Double::start("alice").await;
    let params = json!({ "name": "test_progress", "arguments": { "steps": 3 }, "_meta": { "progressToken": "t" } });
    double.request(1, "tools/call", params).await;
    for step in 1..=3 {
        let message = double.message().await;
        assert_eq!(message["method"], "notifications/progress");
        let expected = json!({ "progressToken": "t", "progress": step, "total": 3 });
        assert_eq!(message["params"], expected);
    }
    assert_eq!(double.message().await["id"], 1);
}

#[tokio::test]
async fn environment_is_listed_by_name_and_stderr_is_written_raw() {
    let mut double = Double::start("alice").await;
    double.call(1, "test_environment", json!({})).await;
    let names = json!(["FAKE_FORGEJO_MCP_TEST_TOOLS", "FORGEJO_ACCESS_TOKEN", "FORGEJO_URL"]);
    assert_eq!(double.result().await, names);
    double.call(2, "test_stderr", json!({ "text": "hello stderr" })).await;
    double.message().await;
    assert!(double.end().await.contains("\nhello stderr\n"));
}

#[tokio::test]
async fn exit_tool_ends_the_process_at_once_and_without_an_answer() {
    let mut double = Double::start("alice").await;
    double.call(1, "test_sleep", json!({ "ms": 60_000 })).await;
    double.call(2, "test_exit", json!({ "code": 7 })).await;
    assert_eq!(double.status().await.code(), Some(7));
    assert_eq!(double.line().await, None);
}

#[tokio::test]
async fn idle_double_ends_with_its_input_or_upon_sigterm() {
    let mut double = Double::start("alice").await;
    double.end().await;
    let mut double = Double::start("alice").await;
    double.ping().await;
    double.signal(Signal::TERM);
    assert_eq!(double.status().await.code(), Some(0));
}

#[tokio::test]
async fn end_waits_for_a_call_in_flight_despite_repeated_sigterm() {
    for by_signal in [false, true] {
        let mut double = Double::start("alice").await;
        double.call(1, "test_sleep", json!({ "ms": 300 })).await;
        double.ping().await;
        if by_signal {
            double.signal(Signal::TERM);
            double.signal(Signal::TERM);
        }
        double.stdin = None;
        assert_eq!(double.process.try_wait().unwrap(), None);
        assert_eq!(double.message().await["id"], 1);
        assert_eq!(double.status().await.code(), Some(0));
    }
}

#[tokio::test]
async fn closed_stdout_ends_the_process() {
    let mut double = Double::start("alice").await;
    double.ping().await;
    double.stdout = None;
    double.request(2, "ping", json!({})).await;
    assert_eq!(double.status().await.code(), Some(1));
}

#[tokio::test]
async fn sighup_kills_the_process_at_once() {
    let mut double = Double::start("alice").await;
    double.call(1, "test_sleep", json!({ "ms": 300 })).await;
    double.ping().await;
    double.signal(Signal::HUP);
    assert_eq!(double.status().await.signal(), Some(1));
}
