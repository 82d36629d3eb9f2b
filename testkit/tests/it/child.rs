//! The double of `forgejo-mcp` as a process: what only signals, exit codes and real pipes can show.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::forgejo::{FakeForgejo, Options};
use tokio::time::timeout;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A running double. Killed at the end should it still run.
struct Double {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Double {
    fn start(forgejo: &FakeForgejo, token: &str) -> Self {
        // Signals that this process was started to ignore, as nohup(1) does it, would be ignored by the double too.
        let mut process = Command::new("/usr/bin/env")
            .args(["--default-signal", env!("CARGO_BIN_EXE_fake-forgejo-mcp")])
            .args(["--transport", "stdio", "--url", forgejo.url()])
            .env_clear()
            .env("FORGEJO_ACCESS_TOKEN", token)
            .env("FAKE_FORGEJO_MCP_TEST_TOOLS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: process.stdin.take(),
            stdout: BufReader::new(process.stdout.take().unwrap()),
            stderr: process.stderr.take().unwrap(),
            process,
        }
    }

    fn request(&mut self, id: u64, method: &str, params: &Value) {
        let line = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.stdin
            .as_mut()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message: {line:?}"))
    }

    /// Lets a call of some length begin; returns once it has begun.
    fn begin_call(&mut self) {
        let call = json!({ "name": "test_sleep", "arguments": { "ms": 300 } });
        self.request(1, "tools/call", &call);
        self.request(2, "ping", &json!({}));
        assert_eq!(self.hear()["id"], 2);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    fn rest(&mut self) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        (out, err)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn forgejo() -> (FakeForgejo, String) {
    let forgejo = FakeForgejo::start(Options::default()).await.unwrap();
    let token = forgejo.access_token("alice", "read:user");
    (forgejo, token)
}

/// Runs the blocking part of a test beside the fake Forgejo.
async fn beside(forgejo: &FakeForgejo, token: &str, test: impl FnOnce(&mut Double) + Send + 'static) {
    let mut double = Double::start(forgejo, token);
    let pid = Pid::from_child(&double.process);
    let testing = tokio::task::spawn_blocking(move || test(&mut double));
    let Ok(tested) = timeout(LIMIT, testing).await else {
        // The end of the process ends whatever the test waits for.
        let _ = kill_process(pid, Signal::KILL);
        panic!("the double does not go on");
    };
    tested.unwrap();
}

#[tokio::test]
async fn it_asks_twice_for_the_version_and_serves_on_real_pipes() {
    let (forgejo, token) = forgejo().await;
    beside(&forgejo, &token, |double| {
        double.request(1, "tools/call", &json!({ "name": "get_my_user_info" }));
        assert!(
            double.hear()["result"]["content"][0]["text"]
                .as_str()
                .unwrap()
                .contains("alice")
        );
        double.request(2, "tools/call", &json!({ "name": "test_environment" }));
        let names = double.hear()["result"]["content"][0]["text"].clone();
        assert_eq!(names, r#"["FAKE_FORGEJO_MCP_TEST_TOOLS","FORGEJO_ACCESS_TOKEN"]"#);
    })
    .await;
    assert_eq!(forgejo.counters().requests_to("/api/v1/version"), 2);
}

#[tokio::test]
async fn a_bad_token_is_exit_1_with_the_reason_on_stderr_only() {
    let (forgejo, _) = forgejo().await;
    beside(&forgejo, "bad-token", |double| {
        assert_eq!(double.end().code(), Some(1));
        let (out, err) = double.rest();
        assert_eq!(out, "");
        assert!(err.contains("bad-token"), "Forgejo's message repeats the token: {err}");
    })
    .await;
}

#[tokio::test]
async fn idle_it_ends_cleanly_at_the_end_of_input_and_upon_sigterm() {
    let (forgejo, token) = forgejo().await;
    beside(&forgejo, &token, |double| {
        double.stdin = None;
        assert_eq!(double.end().code(), Some(0));
    })
    .await;
    beside(&forgejo, &token, |double| {
        double.request(1, "ping", &json!({}));
        double.hear();
        double.signal(Signal::TERM);
        assert_eq!(double.end().code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn a_call_under_way_is_waited_for_however_often_sigterm_comes() {
    let (forgejo, token) = forgejo().await;
    beside(&forgejo, &token, |double| {
        double.begin_call();
        double.signal(Signal::TERM);
        double.signal(Signal::TERM);
        double.stdin = None;
        assert_eq!(double.hear()["id"], 1);
        assert_eq!(double.end().code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn sighup_kills_it_at_once() {
    let (forgejo, token) = forgejo().await;
    beside(&forgejo, &token, |double| {
        double.begin_call();
        double.signal(Signal::HUP);
        assert_eq!(double.end().signal(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_test_can_end_it_with_a_code() {
    let (forgejo, token) = forgejo().await;
    beside(&forgejo, &token, |double| {
        double.request(
            1,
            "tools/call",
            &json!({ "name": "test_exit", "arguments": { "code": 9 } }),
        );
        assert_eq!(double.end().code(), Some(9));
        assert_eq!(double.rest().0, "");
    })
    .await;
}

#[test]
fn it_tells_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_fake-forgejo-mcp"))
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("forgejo-mcp version {}\n", testkit::child::VERSION)
    );
}
