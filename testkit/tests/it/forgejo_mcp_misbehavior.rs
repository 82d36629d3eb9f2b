//! The double of `forgejo-mcp` when it misbehaves: its questions, its bad answers, its script, and
//! its other eras.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use testkit::{
    forgejo::{FakeForgejo, Options},
    forgejo_mcp::{Script, ScriptFile},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Split},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);

struct Double {
    process: Child,
    stdin: ChildStdin,
    stdout: Split<BufReader<ChildStdout>>,
    _forgejo: FakeForgejo,
}

impl Double {
    async fn start(script: Option<&Path>) -> Self {
        Self::start_with(script.map(|path| ("FAKE_FORGEJO_MCP_SCRIPT", path.as_os_str()))).await
    }

    /// A double that speaks another era.
    async fn of_era(era: &str) -> Self {
        Self::start_with(Some(("FAKE_FORGEJO_MCP_ERA", era.as_ref()))).await
    }

    async fn start_with(variable: Option<(&str, &OsStr)>) -> Self {
        let forgejo = FakeForgejo::start(Options::default()).await.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fake-forgejo-mcp"));
        command
            .env_clear()
            .env("FORGEJO_URL", forgejo.url())
            .env("FAKE_FORGEJO_MCP_TEST_TOOLS", "1")
            .envs(variable)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        Self {
            stdin: process.stdin.take().unwrap(),
            stdout: BufReader::new(process.stdout.take().unwrap()).split(b'\n'),
            process,
            _forgejo: forgejo,
        }
    }

    async fn send(&mut self, message: Value) {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn request(&mut self, id: u64, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
    }

    async fn call(&mut self, id: u64, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "mine" } });
        self.request(id, "tools/call", params).await;
    }

    async fn initialize(&mut self) -> Value {
        self.request(0, "initialize", json!({ "protocolVersion": "2025-11-25" }))
            .await;
        self.message().await
    }

    async fn line(&mut self) -> Vec<u8> {
        let line = timeout(LIMIT, self.stdout.next_segment()).await;
        line.expect("a line in time").unwrap().expect("the double goes on")
    }

    async fn message(&mut self) -> Value {
        serde_json::from_slice(&self.line().await).unwrap()
    }
}

fn text_of(answer: &Value) -> Value {
    serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn question_has_the_chosen_id_and_its_answer_is_reported() {
    let mut double = Double::start(None).await;
    double
        .call(1, "test_ask", json!({ "id": "q1", "question": "sure?" }))
        .await;
    let question = double.message().await;
    assert_eq!(
        (&question["id"], &question["method"]),
        (&json!("q1"), &json!("elicitation/create"))
    );
    assert_eq!(question["params"]["message"], "sure?");
    let answer = json!({ "jsonrpc": "2.0", "id": "q1", "result": { "action": "accept" } });
    double.send(answer.clone()).await;
    let result = text_of(&double.message().await);
    assert_eq!(
        result,
        json!({ "pid": double.process.id().unwrap(), "answers": [answer] })
    );

    double
        .call(2, "test_ask", json!({ "id": 7, "question": "sure?", "twice": true }))
        .await;
    assert_eq!(double.message().await["id"], 7);
    assert_eq!(double.message().await["id"], 7);
    for action in ["accept", "decline"] {
        double
            .send(json!({ "jsonrpc": "2.0", "id": 7, "result": { "action": action } }))
            .await;
    }
    let answers = text_of(&double.message().await)["answers"].clone();
    assert_eq!(answers[0]["result"]["action"], "accept");
    assert_eq!(answers[1]["result"]["action"], "decline");

    double.call(3, "test_received", json!({})).await;
    let received = text_of(&double.message().await);
    assert_eq!((received.as_array().unwrap().len(), &received[0]), (3, &answer));
}

#[tokio::test]
async fn stamp_repeats_the_nonce_of_the_answer_to_its_question() {
    let mut double = Double::start(None).await;
    double
        .call(1, "test_stamp", json!({ "mark": "a.1", "ask": true }))
        .await;
    let question = double.message().await;
    assert_eq!(
        (&question["id"], &question["params"]["message"]),
        (&json!(1), &json!("a.1"))
    );
    let result = json!({ "action": "accept", "content": { "nonce": "n" } });
    double
        .send(json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }))
        .await;
    let stamp = text_of(&double.message().await);
    assert_eq!((&stamp["mark"], &stamp["nonce"]), (&json!("a.1"), &json!("n")));
}

#[tokio::test]
async fn bad_answers_are_bad_in_their_own_way() {
    let mut double = Double::start(None).await;
    for (kind, is_json) in [
        ("nan", false),
        ("latin-1", false),
        ("glued", false),
        ("neither", true),
        ("string-id", true),
    ] {
        double.call(5, "test_answer", json!({ "as": kind })).await;
        let line = double.line().await;
        assert_eq!(serde_json::from_slice::<Value>(&line).is_ok(), is_json, "{kind}");
        assert!(
            line.windows(6).any(|bytes| bytes.starts_with(b"\"id\":")
                && bytes.ends_with(if kind == "string-id" { b"\"" } else { b"5" }))
        );
    }
}

#[tokio::test]
async fn stray_progress_is_around_the_answer() {
    let mut double = Double::start(None).await;
    double
        .call(1, "test_stray_progress", json!({ "token": "unknown" }))
        .await;
    assert_eq!(double.message().await["params"]["progressToken"], "unknown");
    assert_eq!(double.message().await["id"], 1);
    assert_eq!(double.message().await["params"]["progressToken"], "mine");
}

#[tokio::test]
async fn subscriptions_decide_about_updates() {
    let mut double = Double::start(None).await;
    for (method, subscribed) in [("resources/subscribe", true), ("resources/unsubscribe", false)] {
        double.request(1, method, json!({ "uri": "a:b" })).await;
        assert_eq!(double.message().await["result"], json!({}));
        double.call(2, "test_update", json!({ "uri": "a:b" })).await;
        if subscribed {
            assert_eq!(double.message().await["method"], "notifications/resources/updated");
        }
        assert_eq!(text_of(&double.message().await)["subscribed"], subscribed);
    }
}

#[tokio::test]
async fn script_applies_to_processes_that_start_after_it() {
    let file = ScriptFile::new(&Script::default()).unwrap();
    let mut double = Double::start(Some(&file.path())).await;
    let result = double.initialize().await["result"].clone();
    assert_eq!(result["protocolVersion"], "2025-11-25");
    assert!(result["capabilities"]["resources"].is_object());

    file.write(&Script {
        protocol_version: Some("2025-06-18".to_owned()),
        lacks: vec!["resources".to_owned()],
        more_tools: vec!["another".to_owned()],
        never_answers: vec!["ping".to_owned(), "test_read".to_owned()],
        ..Script::default()
    })
    .unwrap();
    let mut second = Double::start(Some(&file.path())).await;
    let result = second.initialize().await["result"].clone();
    assert_eq!(result["protocolVersion"], "2025-06-18");
    assert!(result["capabilities"]["resources"].is_null());
    second.request(2, "ping", json!({})).await;
    second.call(3, "test_read", json!({})).await;
    second.request(4, "tools/list", json!({})).await;
    let list = second.message().await;
    assert_eq!(list["id"], 4, "what came before is never answered");
    let tools = list["result"]["tools"].as_array().unwrap().clone();
    assert_eq!(tools.last().unwrap()["name"], "another");
    let hint = |name: &str| tools.iter().find(|tool| tool["name"] == name).unwrap()["annotations"].clone();
    assert_eq!(hint("test_read")["readOnlyHint"], true);
    assert_eq!(hint("test_repeat")["idempotentHint"], true);
    assert!(hint("test_write").is_null());

    file.write(&Script {
        refuses_initialize: true,
        ..Script::default()
    })
    .unwrap();
    let mut refusing = Double::start(Some(&file.path())).await;
    assert!(refusing.initialize().await["error"].is_object());

    file.write(&Script {
        exit: Some(4),
        ..Script::default()
    })
    .unwrap();
    let mut exiting = Double::start(Some(&file.path())).await;
    let status = timeout(LIMIT, exiting.process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(4));
}

#[tokio::test]
async fn task_lives_for_its_ttl() {
    let mut double = Double::start(None).await;
    double.call(1, "test_task", json!({ "ttl": 500 })).await;
    let task = double.message().await["result"]["task"].clone();
    assert_eq!((&task["status"], &task["ttl"]), (&json!("working"), &json!(500)));
}

/// The parameters of a modern request.
fn modern(mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    params
}

#[tokio::test]
async fn modern_double_answers_only_requests_that_say_who_sends_them() {
    let mut double = Double::of_era("modern").await;
    double.request(1, "server/discover", modern(json!({}))).await;
    let discovered = double.message().await;
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["result"]["resultType"], "complete");
    let mut other = modern(json!({}));
    other["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2025-11-25");
    for (method, params, code) in [
        ("server/discover", other, -32022),
        ("tools/list", json!({}), -32602),
        ("initialize", modern(json!({})), -32601),
        ("ping", modern(json!({})), -32601),
    ] {
        double.request(2, method, params).await;
        assert_eq!(double.message().await["error"]["code"], code, "{method}");
    }
}

#[tokio::test]
async fn modern_double_asks_by_its_answer() {
    let mut double = Double::of_era("modern").await;
    let arguments = json!({ "question": "sure?" });
    let mut params = modern(json!({ "name": "test_ask", "arguments": arguments }));
    double.request(1, "tools/call", params.clone()).await;
    let asked = double.message().await;
    assert_eq!(asked["result"]["resultType"], "input_required");
    assert_eq!(asked["result"]["inputRequests"]["first"]["params"]["message"], "sure?");
    params["inputResponses"] = json!({ "first": { "action": "accept" } });
    double.request(2, "tools/call", params.clone()).await;
    let again = double.message().await;
    assert_eq!(again["result"]["resultType"], "input_required", "the state is missing");
    params["requestState"] = asked["result"]["requestState"].clone();
    double.request(3, "tools/call", params).await;
    let result = text_of(&double.message().await);
    assert_eq!(result["answers"], json!([{ "result": { "action": "accept" } }]));
}

#[tokio::test]
async fn modern_double_notifies_who_listens() {
    let mut double = Double::of_era("modern").await;
    let filter = json!({ "resourceSubscriptions": ["test://a"] });
    double
        .request(1, "subscriptions/listen", modern(json!({ "notifications": filter })))
        .await;
    assert_eq!(double.message().await["params"]["notifications"], filter);
    for (id, uri, subscribed) in [(2, "test://b", false), (3, "test://a", true)] {
        let params = modern(json!({ "name": "test_update", "arguments": { "uri": uri } }));
        double.request(id, "tools/call", params).await;
        if subscribed {
            let meta = double.message().await["params"]["_meta"].clone();
            assert_eq!(meta, json!({ "io.modelcontextprotocol/subscriptionId": 1 }));
        }
        assert_eq!(text_of(&double.message().await)["subscribed"], subscribed);
    }
}

#[tokio::test]
async fn double_of_the_legacy_era_may_exit_on_another_first_message() {
    let mut double = Double::of_era("exits").await;
    assert_eq!(double.initialize().await["result"]["protocolVersion"], "2025-11-25");
    let mut double = Double::of_era("exits").await;
    double.request(1, "server/discover", modern(json!({}))).await;
    assert_eq!(double.process.wait().await.unwrap().code(), Some(1));
}
