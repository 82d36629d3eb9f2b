//! Links to a server of 2026-07-28, and the question for the era.

use bridge::ServerEra;
use serde_json::{Value, json};

use super::{
    header,
    script::{
        HttpTest, ITS_ID, Received, accepted, error, events, held, joined, json_answer, opened, opened_with, result,
        status, value, with_type,
    },
};
use crate::harness::{Kind, initialize};

const VERSION: &str = "2025-11-25";

/// The answer to `server/discover`.
fn discovered(capabilities: &Value) -> String {
    let result = json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities });
    json_answer(&json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": result }))
}

fn error_answer(status: &str, code: i64) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": ITS_ID, "error": { "code": code, "message": "no" } });
    with_type(status, "application/json", &body.to_string())
}

fn complete() -> String {
    json_answer(&json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": { "resultType": "complete", "content": [] } }))
}

fn tool_call(id: u64, name: &str) -> String {
    let params = json!({ "name": name });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

fn method(request: &Received) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    body["method"].as_str().unwrap_or_default().to_owned()
}

impl HttpTest {
    /// A conversation with a modern server after its handshake.
    async fn open_modern(capabilities: Value, answers: impl IntoIterator<Item = String>) -> Self {
        let answers = std::iter::once(discovered(&capabilities)).chain(answers);
        let mut test = Self::start_as(Some(ServerEra::Modern), answers).await;
        assert_eq!(test.post(initialize(VERSION)).await.kind, Kind::Opened);
        test.receives("server/discover").await;
        test.notify("notifications/initialized").await;
        test
    }

    async fn receives(&mut self, expected: &str) -> Received {
        let request = self.script.next().await;
        assert_eq!(method(&request), expected);
        request
    }
}

#[tokio::test]
async fn each_request_has_the_headers_that_mirror_it_and_no_session() {
    let mut test = HttpTest::open_modern(json!({}), [complete(), complete()]).await;
    for (id, name, mirrored) in [(1, "a b", "a b"), (2, "\u{e9}", "=?base64?w6k=?=")] {
        let answer = value(test.post(tool_call(id, name)).await).await;
        assert_eq!(answer["result"], json!({ "content": [] }));
        // Nothing was sent for `notifications/initialized`.
        let seen = test.receives("tools/call").await;
        assert_eq!(seen.line, "POST /mcp HTTP/1.1");
        let expected = [
            "accept: application/json, text/event-stream",
            "authorization: Bearer token-0",
            "content-type: application/json",
            "mcp-method: tools/call",
            &format!("mcp-name: {mirrored}"),
            "mcp-protocol-version: 2026-07-28",
        ];
        assert_eq!(seen.headers, expected);
        assert!(
            seen.body.contains("io.modelcontextprotocol/clientCapabilities"),
            "{}",
            seen.body
        );
    }
    let HttpTest { script, link, .. } = test;
    link.close().await;
    assert!(script.seen.is_empty(), "there is no session to delete");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let answers = [status("401 Unauthorized"), complete(), complete()];
    let mut test = HttpTest::open_modern(json!({}), answers).await;
    for (id, tokens) in [(1, &["token-0", "token-1"][..]), (2, &["token-1"])] {
        assert!(value(test.post(tool_call(id, "t")).await).await["result"].is_object());
        for token in tokens {
            let seen = test.receives("tools/call").await;
            assert_eq!(header(&seen, "authorization"), format!("Bearer {token}"));
        }
    }
}

#[tokio::test]
async fn errors_of_the_server_are_the_responses_of_their_requests() {
    let foreign = r#"data: {"jsonrpc":"2.0","id":999,"result":{}}"#;
    for (answer, code, message) in [
        (error_answer("404 Not Found", -32601), -32601, "no"),
        (error_answer("400 Bad Request", -32602), -32602, "no"),
        (error_answer("400 Bad Request", -32020), -32603, "no"),
        (error_answer("200 OK", 5), 5, "no"),
        (status("500 Oops"), -32000, "refused"),
        (status("404 Not Found"), -32000, "refused"),
        (with_type("200 OK", "text/html", "<p>"), -32000, "invalid response"),
        (accepted(), -32000, "invalid response"),
        (events(&format!("{foreign}\n\n")), -32000, "broke off"),
        (events("data: nonsense\n\n"), -32000, "broke off"),
        (String::new(), -32000, "cannot be reached"),
    ] {
        let test = HttpTest::open_modern(json!({}), [answer.clone(), complete()]).await;
        let failed = value(test.post(tool_call(1, "t")).await).await;
        assert_eq!(failed["error"]["code"], code, "{answer}: {failed}");
        assert!(
            failed["error"]["message"].to_string().contains(message),
            "{answer}: {failed}"
        );
        // The link continues.
        assert!(value(test.post(tool_call(2, "t")).await).await["result"].is_object());
    }
}

#[tokio::test]
async fn a_cancelled_request_is_closed_without_a_message() {
    let mut test = HttpTest::open_modern(json!({}), [held(&complete()), complete()]).await;
    let call = test.begin(tool_call(1, "t"));
    test.receives("tools/call").await;
    test.cancel(1).await;
    assert!(error(joined(call).await, 1).await.contains("cancelled"));
    assert!(value(test.post(tool_call(2, "t")).await).await["result"].is_object());
    test.receives("tools/call").await;
    assert!(test.script.seen.is_empty());
}

#[tokio::test]
async fn a_subscription_that_breaks_off_is_opened_again_and_the_lists_are_fetched() {
    let acknowledged = json!({
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {
            "_meta": { "io.modelcontextprotocol/subscriptionId": ITS_ID },
            "notifications": { "toolsListChanged": true },
        },
    });
    let listening = events(&format!("data: {acknowledged}\n\n"));
    let list = |names: &[&str]| {
        let tools: Vec<Value> = names
            .iter()
            .map(|name| json!({ "name": name, "inputSchema": {} }))
            .collect();
        json_answer(&json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": { "tools": tools } }))
    };
    let answers = [held(&listening), list(&["a"]), listening, list(&["a", "b"])];
    let mut test = HttpTest::open_modern(json!({ "tools": { "listChanged": true } }), answers).await;
    test.receives("subscriptions/listen").await;
    let listed = test.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    assert_eq!(value(listed).await["result"]["tools"].as_array().map(Vec::len), Some(1));
    test.receives("tools/list").await;
    let mut changes = test.get().await;
    test.script.gate.add_permits(1);
    test.receives("subscriptions/listen").await;
    test.receives("tools/list").await;
    assert!(changes.message().await.contains("notifications/tools/list_changed"));
}

#[tokio::test]
async fn the_answer_to_a_modern_request_decides_about_the_era() {
    let unsupported = |versions: &[&str]| {
        let data = json!({ "supported": versions });
        let error = json!({ "code": -32022, "message": "no", "data": data });
        let body = json!({ "jsonrpc": "2.0", "id": ITS_ID, "error": error });
        with_type("400 Bad Request", "application/json", &body.to_string())
    };
    let as_event = |answer: &str| events(&format!("data: {}\n\n", answer.rsplit('\n').next().unwrap_or_default()));
    for (answer, is_modern) in [
        (discovered(&json!({})), true),
        (as_event(&discovered(&json!({}))), true),
        (unsupported(&["2026-07-28"]), true),
        (error_answer("400 Bad Request", -32020), true),
        (error_answer("400 Bad Request", -32021), true),
        (unsupported(&["2025-11-25"]), false),
        (error_answer("400 Bad Request", -32000), false),
        (error_answer("404 Not Found", -32601), false),
        (error_answer("200 OK", -32601), false),
        (status("400 Bad Request"), false),
        (status("404 Not Found"), false),
        (status("405 Method Not Allowed"), false),
        (status("503 Unavailable"), false),
    ] {
        let handshake = if is_modern { discovered(&json!({})) } else { opened("s") };
        let mut test = HttpTest::start_as(None, [answer.clone(), handshake]).await;
        assert_eq!(test.post(initialize(VERSION)).await.kind, Kind::Opened, "{answer}");
        let question = test.receives("server/discover").await;
        assert_eq!(header(&question, "mcp-method"), "server/discover");
        assert_eq!(header(&question, "authorization"), "Bearer token-0");
        let expected = if is_modern { "server/discover" } else { "initialize" };
        test.receives(expected).await;
    }
}

#[tokio::test]
async fn a_refusal_of_the_user_says_nothing_about_the_era() {
    for refusal in ["401 Unauthorized", "403 Forbidden"] {
        let answers = vec![status(refusal); 2].into_iter();
        let test = HttpTest::start_as(None, answers.chain([discovered(&json!({}))])).await;
        test.wait_for_end().await;
    }
}

#[tokio::test]
async fn a_verdict_is_remembered_until_the_server_behaves_otherwise() {
    let modern = || discovered(&json!({}));
    let now_legacy = [
        status("404 Not Found"),
        status("404 Not Found"),
        opened("s"),
        accepted(),
    ];
    let answers = [modern(), modern(), modern()].into_iter().chain(now_legacy);
    let mut test = HttpTest::start_as(None, answers).await;
    assert_eq!(test.post(initialize(VERSION)).await.kind, Kind::Opened);
    test.notify("notifications/initialized").await;
    let second = test.connect_another().await.expect("a link");
    for _question_and_two_handshakes in 0..3 {
        test.receives("server/discover").await;
    }
    assert!(error(test.post(tool_call(1, "t")).await, 1).await.contains("refused"));
    test.receives("tools/call").await;
    second.done().cancelled().await;
    assert!(second.has_refused_era());
}

#[tokio::test]
async fn a_server_of_another_era_than_remembered_gets_its_handshake() {
    let legacy = opened_with("s", &result(VERSION));
    let refused = || error_answer("404 Not Found", -32601);
    let modern = || discovered(&json!({}));
    let answers = [modern(), modern(), refused(), refused(), legacy, accepted()];
    let mut test = HttpTest::start_as(None, answers).await;
    assert_eq!(test.post(initialize(VERSION)).await.kind, Kind::Opened);
    test.notify("notifications/initialized").await;
    let second = test.connect_another().await.expect("a link to a legacy server");
    for expected in ["server/discover"; 4] {
        test.receives(expected).await;
    }
    test.receives("initialize").await;
    test.receives("notifications/initialized").await;
    assert!(!second.has_refused_era());
}
