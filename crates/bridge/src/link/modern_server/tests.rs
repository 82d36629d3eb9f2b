//! One test for each rule of the translation. `model` covers random schedules.

mod model;

use serde_json::{Value, json};
use tokio::time::Duration;

use super::*;

/// The capabilities of the tests' client.
fn capabilities() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": { "listChanged": true }, "tasks": {} })
}

/// A translator between a machine and a server that are both played by a test.
struct Pair {
    server: ModernServer,
    now: Instant,
    refused: Arc<AtomicBool>,
    /// What has come for the machine.
    replies: Vec<Value>,
}

fn message(value: &Value) -> Envelope {
    Envelope::parse(value.to_string().as_bytes()).expect("a message")
}

fn values(lines: &[Bytes]) -> Vec<Value> {
    let values = lines.iter().map(|line| serde_json::from_slice(line));
    values.collect::<Result<_, _>>().expect("JSON")
}

impl Pair {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let refused = Arc::default();
        Self {
            server: ModernServer::new(config, Arc::clone(&refused)),
            now: Instant::now(),
            refused,
            replies: Vec::new(),
        }
    }

    /// A pair whose handshake is complete.
    fn open(client: &Value, server: &Value) -> Self {
        let mut pair = Self::new();
        pair.initialize(client);
        let [discover] = pair.sent();
        pair.answer(&discover, &discovered(server));
        let _initialized: [Value; 1] = pair.replies();
        pair.notify("notifications/initialized", &json!({}));
        pair
    }

    fn tools() -> Self {
        Self::open(&capabilities(), &json!({ "tools": {} }))
    }

    fn initialize(&mut self, capabilities: &Value) {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "clientInfo": { "name": "client", "version": "1" },
        });
        self.ask(1, "initialize", &params);
    }

    fn ask(&mut self, number: u64, method: &str, params: &Value) {
        let request = json!({ "jsonrpc": "2.0", "id": number, "method": method, "params": params });
        self.machine(&request);
    }

    fn call(&mut self, number: u64) -> Value {
        let params = json!({ "name": "tool", "arguments": { "x": 1 }, "_meta": { "progressToken": number } });
        self.ask(number, "tools/call", &params);
        let [sent] = self.sent();
        sent
    }

    fn notify(&mut self, method: &str, params: &Value) {
        self.machine(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn machine(&mut self, value: &Value) {
        let lines = self.server.receive_from_machine(self.now, &message(value));
        self.replies.extend(values(&lines));
    }

    fn child(&mut self, value: &Value) {
        let lines = self.server.receive_from_server(self.now, &message(value));
        self.replies.extend(values(&lines));
    }

    /// The server answers a request with a result.
    fn answer(&mut self, request: &Value, result: &Value) {
        self.child(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }));
    }

    /// The machine answers a question.
    fn reply(&mut self, question: &Value, result: &Value) {
        self.machine(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }));
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        let lines = self.server.run_timers(self.now);
        self.replies.extend(values(&lines));
    }

    /// The lines that the server has got since the last call.
    #[track_caller]
    fn sent<const N: usize>(&mut self) -> [Value; N] {
        let mut lines = Vec::new();
        while let Some(chunk) = self.server.take_output() {
            let chunk = std::str::from_utf8(&chunk).expect("text").to_owned();
            lines.extend(chunk.lines().map(|line| serde_json::from_str(line).expect("JSON")));
        }
        lines.try_into().expect("as many lines as expected")
    }

    /// The lines that the machine has got since the last call.
    #[track_caller]
    fn replies<const N: usize>(&mut self) -> [Value; N] {
        let lines = mem::take(&mut self.replies);
        lines.try_into().expect("as many lines as expected")
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.server.config.drop_counts.get(reason)
    }

    /// Nothing is kept for a call.
    fn is_idle(&self) -> bool {
        let server = &self.server;
        server.calls.is_empty()
            && server.questions.is_empty()
            && server.kept_bytes == 0
            && server.sent.values().all(|sent| *sent == SentRequest::Listen)
    }
}

fn discovered(capabilities: &Value) -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": capabilities,
        "instructions": "Be kind",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "server", "version": "2" } },
    })
}

fn form(message: &str) -> Value {
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": { "type": "object" } } })
}

fn input_required(inputs: &Value, state: &str) -> Value {
    json!({ "resultType": "input_required", "inputRequests": inputs, "requestState": state })
}

#[test]
fn initialize_is_answered_from_discovery() {
    let mut pair = Pair::new();
    pair.initialize(&capabilities());
    let [discover] = pair.sent();
    assert_eq!(discover["method"], "server/discover");
    assert_eq!(discover["params"]["_meta"][META_VERSION], VERSION);
    let server = json!({ "tools": { "listChanged": true }, "extensions": { TASKS_EXTENSION: {}, "x/y": { "a": 1 } } });
    pair.answer(&discover, &discovered(&server));
    let [initialized] = pair.replies();
    assert_eq!(
        initialized,
        json!({ "jsonrpc": "2.0", "id": 1, "result": {
            "protocolVersion": "2025-06-18",
            "capabilities": { "tools": { "listChanged": true }, "extensions": { "x/y": { "a": 1 } } },
            "serverInfo": { "name": "server", "version": "2" },
            "instructions": "Be kind",
        } })
    );
    assert!(!pair.refused.load(Ordering::Relaxed));
}

#[test]
fn a_version_that_is_not_known_becomes_the_latest_with_a_handshake() {
    for version in ["2026-07-28", "1999-01-01"] {
        let mut pair = Pair::new();
        pair.ask(
            1,
            "initialize",
            &json!({ "protocolVersion": version, "capabilities": {} }),
        );
        let [discover] = pair.sent();
        pair.answer(&discover, &discovered(&json!({})));
        let [initialized] = pair.replies();
        assert_eq!(initialized["result"]["protocolVersion"], "2025-11-25");
    }
}

#[test]
fn a_server_without_the_era_is_refused() {
    for (answer, code) in [
        (json!({ "error": { "code": -32601, "message": "no" } }), -32601),
        (json!({ "error": { "code": -32022, "message": "no" } }), -32603),
        (
            json!({ "result": { "supportedVersions": ["2027-01-01"], "capabilities": {} } }),
            -32601,
        ),
        (json!({ "result": {} }), -32601),
    ] {
        let mut pair = Pair::new();
        pair.initialize(&json!({}));
        let [discover] = pair.sent();
        let mut answer = answer;
        answer["jsonrpc"] = json!("2.0");
        answer["id"] = discover["id"].clone();
        pair.child(&answer);
        let [refused] = pair.replies();
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(1), &json!(code)));
        assert!(pair.refused.load(Ordering::Relaxed));
    }
}

#[test]
fn requests_say_who_sends_them() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    assert_eq!(sent["method"], "tools/call");
    assert_eq!(sent["params"]["arguments"], json!({ "x": 1 }));
    let meta = json!({
        "progressToken": 7,
        META_VERSION: VERSION,
        META_CAPABILITIES: { "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} },
        META_CLIENT_INFO: { "name": "client", "version": "1" },
    });
    assert_eq!(sent["params"]["_meta"], meta);
    pair.answer(&sent, &json!({ "resultType": "complete", "content": [] }));
    let [answered] = pair.replies();
    assert_eq!(
        answered,
        json!({ "jsonrpc": "2.0", "id": 7, "result": { "content": [] } })
    );
    assert!(pair.is_idle());
}

#[test]
fn some_requests_are_answered_here() {
    let mut pair = Pair::tools();
    for (method, code) in [
        ("ping", Value::Null),
        ("tasks/list", json!(-32601)),
        ("resources/subscribe", json!(-32602)),
        ("resources/unsubscribe", json!(-32602)),
        ("logging/setLevel", json!(-32602)),
    ] {
        pair.ask(5, method, &json!({ "level": "loud" }));
        let [answered] = pair.replies();
        assert_eq!(
            (&answered["id"], &answered["error"]["code"]),
            (&json!(5), &code),
            "{method}"
        );
    }
    pair.notify("notifications/roots/list_changed", &json!({}));
    pair.notify("notifications/progress", &json!({ "progressToken": 1, "progress": 1 }));
    let [] = pair.sent();
}

#[test]
fn the_log_level_is_part_of_each_later_request() {
    let mut pair = Pair::tools();
    assert_eq!(pair.call(2)["params"]["_meta"][META_LOG_LEVEL], Value::Null);
    pair.ask(3, "logging/setLevel", &json!({ "level": "warning" }));
    let [granted] = pair.replies();
    assert_eq!(granted["result"], json!({}));
    assert_eq!(pair.call(4)["params"]["_meta"][META_LOG_LEVEL], "warning");
}

#[test]
fn a_task_that_the_client_asks_for_is_a_plain_call() {
    let mut pair = Pair::tools();
    pair.ask(2, "tools/call", &json!({ "name": "tool", "task": { "ttl": 1 } }));
    let [sent] = pair.sent();
    assert_eq!(sent["params"]["task"], Value::Null);
}

#[test]
fn questions_name_their_call_and_their_key_and_the_last_answer_repeats_it() {
    let mut pair = Pair::tools();
    let first = pair.call(7);
    let inputs = json!({ "who": form("Who?"), "where": { "method": "roots/list" } });
    pair.answer(&first, &input_required(&inputs, "st\u{e9}/te"));
    let [where_, who] = pair.replies();
    let hints = |key: &str| json!({ CALL_HINT: "7", KEY_HINT: key });
    assert_eq!(
        (&where_["method"], &where_["params"]["_meta"]),
        (&json!("roots/list"), &hints("where"))
    );
    assert_eq!(
        (&who["params"]["message"], &who["params"]["_meta"]),
        (&json!("Who?"), &hints("who"))
    );
    pair.reply(&who, &json!({ "action": "accept", "content": { "name": "Ann" } }));
    let [] = pair.sent();
    pair.reply(&where_, &json!({ "roots": [] }));
    let [retry] = pair.sent();
    assert_ne!(retry["id"], first["id"]);
    let params = &retry["params"];
    assert_eq!(params["arguments"], first["params"]["arguments"]);
    assert_eq!(params["_meta"], first["params"]["_meta"]);
    assert_eq!(params["requestState"], "st\u{e9}/te");
    let answers = json!({ "who": { "action": "accept", "content": { "name": "Ann" } }, "where": { "roots": [] } });
    assert_eq!(params["inputResponses"], answers);
    // The first answer is over: a second one matches nothing.
    pair.answer(&first, &json!({ "content": [1] }));
    assert_eq!(pair.dropped(DropReason::UnmatchedResponse), 1);
    pair.answer(&retry, &json!({ "content": [] }));
    let [answered] = pair.replies();
    assert_eq!(answered["id"], 7);
    assert!(pair.is_idle());
}

#[test]
fn the_request_state_is_returned_byte_for_byte() {
    let mut pair = Pair::tools();
    let first = pair.call(7);
    let state = r#""a\u00e9\/b\u0001""#;
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"input_required","requestState":{state}}}}}"#,
        first["id"]
    );
    let lines = pair
        .server
        .receive_from_server(pair.now, &Envelope::parse(line.as_bytes()).expect("a message"));
    assert_eq!(lines, Vec::<Bytes>::new());
    pair.now += REPEAT;
    pair.server.run_timers(pair.now);
    let output = pair.server.take_output().expect("a line");
    let output = std::str::from_utf8(&output).expect("text");
    assert!(output.contains(&format!(r#""requestState":{state}"#)), "{output}");
}

/// The time before a call is repeated without a question.
const REPEAT: Duration = Duration::from_millis(250);

#[test]
fn a_state_alone_repeats_the_call_after_a_while() {
    let mut pair = Pair::tools();
    let first = pair.call(7);
    pair.answer(
        &first,
        &json!({ "resultType": "input_required", "requestState": "later" }),
    );
    pair.wait(249);
    let [] = pair.sent();
    pair.wait(1);
    let [retry] = pair.sent();
    assert_eq!(retry["params"]["requestState"], "later");
    assert_eq!(retry["params"]["inputResponses"], Value::Null);
}

#[test]
fn the_eleventh_round_ends_the_call() {
    let mut pair = Pair::tools();
    let mut sent = pair.call(7);
    for _ in 0..10 {
        pair.answer(
            &sent,
            &json!({ "resultType": "input_required", "requestState": "later" }),
        );
        pair.wait(250);
        [sent] = pair.sent();
    }
    pair.answer(
        &sent,
        &json!({ "resultType": "input_required", "requestState": "later" }),
    );
    let [answered] = pair.replies();
    assert_eq!(
        (&answered["id"], &answered["result"]["isError"]),
        (&json!(7), &json!(true))
    );
    assert!(pair.is_idle());
}

#[test]
fn undeclared_questions_fail_the_call() {
    let url = json!({ "method": "elicitation/create", "params": { "mode": "url", "message": "m", "url": "u" } });
    let tools = json!({ "method": "sampling/createMessage", "params": { "messages": [], "tools": [] } });
    let sampling = json!({ "method": "sampling/createMessage", "params": { "messages": [] } });
    for (declared, input) in [
        (json!({}), form("?")),
        (json!({ "elicitation": { "url": {} } }), form("?")),
        (json!({ "elicitation": {} }), url),
        (json!({ "sampling": {} }), tools),
        (json!({ "elicitation": {} }), sampling),
        (json!({ "elicitation": {} }), json!({ "method": "roots/list" })),
    ] {
        let mut pair = Pair::open(&declared, &json!({}));
        let sent = pair.call(7);
        pair.answer(&sent, &input_required(&json!({ "k": input }), "s"));
        let [answered] = pair.replies();
        assert_eq!(
            (&answered["id"], &answered["result"]["isError"]),
            (&json!(7), &json!(true))
        );
        pair.ask(8, "prompts/get", &json!({ "name": "p" }));
        let [sent] = pair.sent();
        pair.answer(&sent, &input_required(&json!({ "k": input }), "s"));
        let [answered] = pair.replies();
        assert_eq!(
            (&answered["id"], &answered["error"]["code"]),
            (&json!(8), &json!(-32603))
        );
        assert!(pair.is_idle());
    }
}

#[test]
fn questions_that_are_none_are_errors() {
    for result in [
        json!({ "resultType": "input_required" }),
        json!({ "resultType": "input_required", "requestState": 1 }),
        json!({ "resultType": "input_required", "inputRequests": [] }),
        input_required(&json!({ "k": { "method": "tools/call" } }), "s"),
        input_required(&json!({ "k": { "method": "roots/list", "params": [] } }), "s"),
        json!({ "resultType": "other" }),
        json!([]),
    ] {
        let mut pair = Pair::tools();
        let sent = pair.call(7);
        pair.answer(&sent, &result);
        let [answered] = pair.replies();
        assert_eq!(
            (&answered["id"], &answered["error"]["code"]),
            (&json!(7), &json!(-32603)),
            "{result}"
        );
        assert!(pair.is_idle());
    }
}

#[test]
fn lists_have_no_questions() {
    let mut pair = Pair::tools();
    pair.ask(7, "tools/list", &json!({}));
    let [sent] = pair.sent();
    pair.answer(&sent, &input_required(&json!({ "k": form("?") }), "s"));
    let [answered] = pair.replies();
    assert_eq!(answered["error"]["code"], -32603);
}

#[test]
fn an_elicitation_by_url_gets_an_id_of_its_own() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    let url = json!({ "method": "elicitation/create", "params": { "mode": "url", "message": "m", "url": "u" } });
    pair.answer(&sent, &input_required(&json!({ "a": url, "b": url }), "s"));
    let [a, b] = pair.replies();
    let id = |question: &Value| question["params"]["elicitationId"].as_str().expect("an id").to_owned();
    assert_ne!(id(&a), id(&b));
}

#[test]
fn a_question_that_the_client_does_not_answer_fails_the_call() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    pair.answer(&sent, &input_required(&json!({ "a": form("?"), "b": form("?") }), "s"));
    let [a, b] = pair.replies();
    let error = json!({ "code": -32001, "message": "no client answered in time" });
    pair.machine(&json!({ "jsonrpc": "2.0", "id": a["id"], "error": error }));
    let [withdrawn, answered] = pair.replies();
    assert_eq!(withdrawn["params"]["requestId"], b["id"]);
    let text = answered["result"]["content"][0]["text"].as_str().expect("a text");
    assert!(text.ends_with("no client answered in time"), "{text}");
    assert!(pair.is_idle());
    pair.reply(&b, &json!({ "action": "accept" }));
    assert_eq!(pair.dropped(DropReason::UnmatchedClientMessage), 1);
    let [] = pair.sent();
}

#[test]
fn a_cancellation_names_the_current_round() {
    let mut pair = Pair::tools();
    let first = pair.call(7);
    pair.answer(
        &first,
        &json!({ "resultType": "input_required", "requestState": "later" }),
    );
    pair.wait(250);
    let [second] = pair.sent();
    pair.notify("notifications/cancelled", &json!({ "requestId": 7, "reason": "why" }));
    let [cancelled] = pair.sent();
    assert_eq!(
        cancelled["params"],
        json!({ "requestId": second["id"], "reason": "why" })
    );
    // Its answer may cross the cancellation, but no question does.
    pair.answer(&second, &input_required(&json!({ "k": form("?") }), "s"));
    let [answered] = pair.replies();
    assert_eq!(answered["error"]["code"], -32000);
    assert!(pair.is_idle());
}

#[test]
fn a_cancelled_call_without_an_answer_is_forgotten() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    pair.notify("notifications/cancelled", &json!({ "requestId": 7 }));
    pair.wait(5000);
    assert!(pair.is_idle());
    pair.answer(&sent, &json!({ "content": [] }));
    let [] = pair.replies();
    assert_eq!(pair.dropped(DropReason::UnmatchedResponse), 1);
}

#[test]
fn a_cancellation_withdraws_the_questions_of_its_call() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    pair.answer(&sent, &input_required(&json!({ "k": form("?") }), "s"));
    let [question] = pair.replies();
    pair.notify("notifications/cancelled", &json!({ "requestId": 7 }));
    let [withdrawn] = pair.replies();
    assert_eq!(withdrawn["method"], "notifications/cancelled");
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    let [] = pair.sent();
    assert!(pair.is_idle());
}

#[test]
fn a_task_is_polled_to_its_end() {
    let mut pair = Pair::open(&capabilities(), &json!({ "extensions": { TASKS_EXTENSION: {} } }));
    let sent = pair.call(7);
    assert_eq!(
        sent["params"]["_meta"][META_CAPABILITIES]["extensions"],
        json!({ TASKS_EXTENSION: {} })
    );
    pair.answer(
        &sent,
        &json!({ "resultType": "task", "taskId": "t", "status": "working", "pollIntervalMs": 500 }),
    );
    pair.wait(499);
    let [] = pair.sent();
    pair.wait(1);
    let [poll] = pair.sent();
    assert_eq!(
        (&poll["method"], &poll["params"]["taskId"]),
        (&json!("tasks/get"), &json!("t"))
    );
    let asks = json!({ "taskId": "t", "status": "input_required", "inputRequests": { "k": form("?") } });
    pair.answer(&poll, &asks);
    let [question] = pair.replies();
    pair.reply(&question, &json!({ "action": "decline" }));
    let [update] = pair.sent();
    assert_eq!(update["method"], "tasks/update");
    assert_eq!(
        update["params"]["inputResponses"],
        json!({ "k": { "action": "decline" } })
    );
    pair.answer(&update, &json!({}));
    pair.wait(1000);
    let [poll] = pair.sent();
    // A question that was answered may still be there.
    pair.answer(&poll, &asks);
    let [] = pair.replies();
    pair.wait(1000);
    let [poll] = pair.sent();
    let result = json!({ "resultType": "complete", "content": [], "isError": true });
    pair.answer(
        &poll,
        &json!({ "taskId": "t", "status": "completed", "result": result }),
    );
    let [answered] = pair.replies();
    assert_eq!(answered["result"], json!({ "content": [], "isError": true }));
    assert!(pair.is_idle());
}

#[test]
fn a_task_that_fails_or_is_cancelled_ends_its_call() {
    let failed = json!({ "status": "failed", "error": { "code": -5, "message": "m" } });
    for (polled, code) in [
        (failed, -5),
        (json!({ "status": "cancelled" }), -32000),
        (json!({ "status": "odd" }), -32603),
        (json!({ "status": "completed" }), -32603),
        (json!({ "status": "input_required" }), -32603),
    ] {
        let mut pair = Pair::tools();
        let sent = pair.call(7);
        pair.answer(
            &sent,
            &json!({ "resultType": "task", "taskId": "t", "status": "working" }),
        );
        pair.wait(1000);
        let [poll] = pair.sent();
        pair.answer(&poll, &polled);
        let [answered] = pair.replies();
        assert_eq!((&answered["id"], &answered["error"]["code"]), (&json!(7), &json!(code)));
        assert!(pair.is_idle());
    }
}

#[test]
fn a_server_that_is_silent_about_its_task_fails_the_call() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    pair.answer(
        &sent,
        &json!({ "resultType": "task", "taskId": "t", "status": "working" }),
    );
    pair.wait(1000);
    pair.wait(30_000);
    let [answered] = pair.replies();
    assert_eq!(answered["error"]["code"], -32001);
}

#[test]
fn cancelling_a_call_cancels_its_task() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    pair.answer(
        &sent,
        &json!({ "resultType": "task", "taskId": "t", "status": "working" }),
    );
    pair.notify("notifications/cancelled", &json!({ "requestId": 7 }));
    let [cancel] = pair.sent();
    assert_eq!(
        (&cancel["method"], &cancel["params"]["taskId"]),
        (&json!("tasks/cancel"), &json!("t"))
    );
    pair.answer(&cancel, &json!({}));
    let [] = pair.replies();
    assert!(pair.is_idle());
}

/// The server that has everything to listen to, and the first request to listen.
fn listening() -> (Pair, Value) {
    let server = json!({ "tools": { "listChanged": true }, "resources": { "subscribe": true } });
    let mut pair = Pair::open(&capabilities(), &server);
    let [listen] = pair.sent();
    (pair, listen)
}

fn acknowledge(pair: &mut Pair, listen: &Value, filter: &Value) {
    let meta = json!({ META_SUBSCRIPTION: listen["id"] });
    let params = json!({ "_meta": meta, "notifications": filter });
    let method = "notifications/subscriptions/acknowledged";
    pair.child(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
}

fn updated(listen: &Value, uri: &str) -> Value {
    let params = json!({ "uri": uri, "_meta": { META_SUBSCRIPTION: listen["id"] } });
    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params })
}

#[test]
fn changes_of_lists_come_by_listening() {
    let (mut pair, listen) = listening();
    assert_eq!(listen["method"], "subscriptions/listen");
    assert_eq!(listen["params"]["notifications"], json!({ "toolsListChanged": true }));
    acknowledge(&mut pair, &listen, &json!({ "toolsListChanged": true }));
    let changed = |id: &Value| {
        let meta = json!({ META_SUBSCRIPTION: id });
        json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": { "_meta": meta } })
    };
    pair.child(&changed(&listen["id"]));
    let [notified] = pair.replies();
    assert_eq!(
        notified,
        json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })
    );
    pair.child(&changed(&json!(99)));
    pair.child(&updated(&listen, "file:///a"));
    let [] = pair.replies();
    assert_eq!(pair.dropped(DropReason::UnmatchedSubscription), 2);
}

#[test]
fn a_subscription_opens_the_next_stream_before_the_last_one_ends() {
    let (mut pair, first) = listening();
    acknowledge(&mut pair, &first, &json!({ "toolsListChanged": true }));
    pair.ask(7, "resources/subscribe", &json!({ "uri": "file:///a" }));
    let [second] = pair.sent();
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["file:///a"] });
    assert_eq!(second["params"]["notifications"], filter);
    let [] = pair.replies();
    acknowledge(&mut pair, &second, &filter);
    let [granted] = pair.replies();
    assert_eq!(granted, json!({ "jsonrpc": "2.0", "id": 7, "result": {} }));
    let [closed] = pair.sent();
    assert_eq!(closed["params"]["requestId"], first["id"]);
    pair.child(&updated(&second, "file:///a"));
    let [update] = pair.replies();
    assert_eq!(update["params"], json!({ "uri": "file:///a" }));
    // Late messages of the one before are no fault.
    pair.child(&updated(&first, "file:///a"));
    pair.answer(&first, &json!({ "resultType": "complete" }));
    let [] = pair.replies();
    assert_eq!(pair.dropped(DropReason::UnmatchedSubscription), 0);
    assert_eq!(pair.dropped(DropReason::UnmatchedResponse), 0);
    pair.ask(8, "resources/unsubscribe", &json!({ "uri": "file:///a" }));
    let [_] = pair.replies();
    let [third] = pair.sent();
    assert_eq!(third["params"]["notifications"], json!({ "toolsListChanged": true }));
}

#[test]
fn subscriptions_during_an_opening_are_one_more_opening() {
    let (mut pair, first) = listening();
    for (number, uri) in [(7, "a"), (8, "b"), (9, "c")] {
        pair.ask(number, "resources/subscribe", &json!({ "uri": uri }));
    }
    let [] = pair.sent();
    acknowledge(&mut pair, &first, &json!({}));
    let [second] = pair.sent();
    assert_eq!(
        second["params"]["notifications"]["resourceSubscriptions"],
        json!(["a", "b", "c"])
    );
    acknowledge(&mut pair, &second, &json!({ "resourceSubscriptions": ["a", "c"] }));
    let [a, b, c] = pair.replies();
    assert_eq!((&a["result"], &c["result"]), (&json!({}), &json!({})));
    assert_eq!(b["error"]["code"], -32602);
}

#[test]
fn a_stream_that_ends_is_opened_again_with_growing_delays() {
    let (mut pair, mut listen) = listening();
    acknowledge(&mut pair, &listen, &json!({ "toolsListChanged": true }));
    for delay in [1000, 2000, 4000] {
        pair.answer(&listen, &json!({ "resultType": "complete" }));
        pair.wait(delay - 1);
        let [] = pair.sent();
        pair.wait(1);
        [listen] = pair.sent();
    }
    let cancelled = json!({ "requestId": listen["id"] });
    pair.child(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled }));
    pair.wait(8000);
    let [_again] = pair.sent();
}

#[test]
fn a_stream_that_is_refused_is_not_opened_again() {
    let (mut pair, listen) = listening();
    pair.child(&json!({ "jsonrpc": "2.0", "id": listen["id"], "error": { "code": -32601, "message": "no" } }));
    pair.ask(7, "resources/subscribe", &json!({ "uri": "a" }));
    let [second] = pair.sent();
    pair.child(&json!({ "jsonrpc": "2.0", "id": second["id"], "error": { "code": -32601, "message": "no" } }));
    let [refused] = pair.replies();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(7), &json!(-32601)));
    pair.wait(1_000_000);
    let [] = pair.sent();
}

#[test]
fn a_stream_that_is_not_acknowledged_ends_its_subscriptions() {
    let (mut pair, first) = listening();
    acknowledge(&mut pair, &first, &json!({ "toolsListChanged": true }));
    pair.ask(7, "resources/subscribe", &json!({ "uri": "a" }));
    let [second] = pair.sent();
    pair.wait(30_000);
    let [refused] = pair.replies();
    assert_eq!(refused["error"]["code"], -32000);
    let [cancelled] = pair.sent();
    assert_eq!(cancelled["params"]["requestId"], second["id"]);
    pair.wait(1_000_000);
    let [] = pair.sent();
}

#[test]
fn a_server_has_no_requests() {
    let mut pair = Pair::tools();
    pair.child(&json!({ "jsonrpc": "2.0", "id": "q", "method": "roots/list" }));
    let [refused] = pair.sent();
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!("q"), &json!(-32601))
    );
    let [] = pair.replies();
    assert_eq!(pair.dropped(DropReason::ServerRequestRejected), 1);
}

#[test]
fn other_notifications_pass_in_both_directions() {
    let mut pair = Pair::tools();
    let progress = json!({ "progressToken": 7, "progress": 1 });
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress });
    pair.child(&progress);
    let [passed] = pair.replies();
    assert_eq!(passed, progress);
    pair.child(&json!({ "jsonrpc": "2.0", "method": "notifications/tasks", "params": {} }));
    let [] = pair.replies();
    pair.notify("notifications/x", &json!({}));
    let [passed] = pair.sent();
    assert_eq!(passed["method"], "notifications/x");
}

#[test]
fn responses_with_other_ids_are_counted_and_dropped() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    for id in [json!(99), json!("x"), Value::Null, json!(-1)] {
        pair.child(&json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
    }
    let [] = pair.replies();
    assert_eq!(pair.dropped(DropReason::UnmatchedResponse), 4);
    // A string of the right digits is a faulty answer to that request.
    pair.child(&json!({ "jsonrpc": "2.0", "id": sent["id"].to_string(), "result": {} }));
    let [failed] = pair.replies();
    assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(7), &json!(-32000)));
    assert!(pair.is_idle());
}

#[test]
fn an_unreadable_answer_fails_its_call() {
    let mut pair = Pair::tools();
    let sent = pair.call(7);
    let id = sent["id"].as_u64().expect("a number");
    let replies = pair.server.invalid_response(pair.now, id, "too long");
    let [failed] = values(&replies).try_into().expect("one line");
    let failed: Value = failed;
    assert_eq!(
        (&failed["id"], &failed["error"]["message"]),
        (&json!(7), &json!("too long"))
    );
    assert_eq!(
        pair.server.invalid_response(pair.now, id, "too long"),
        Vec::<Bytes>::new()
    );
}

#[test]
fn a_call_that_is_too_large_to_keep_has_no_second_round() {
    let mut config = Config::default();
    config.outgoing.bytes = 100;
    let mut pair = Pair::with(config);
    let params = json!({ "name": "tool", "arguments": { "x": "y".repeat(100) } });
    pair.ask(7, "tools/call", &params);
    let [sent] = pair.sent();
    pair.answer(&sent, &json!({ "resultType": "input_required", "requestState": "s" }));
    pair.wait(250);
    let [failed] = pair.replies();
    assert_eq!(failed["error"]["code"], -32603);
    assert!(pair.is_idle());
}

#[test]
fn calls_beyond_the_limit_are_refused() {
    let config = Config {
        max_in_flight: 1,
        ..Config::default()
    };
    let mut pair = Pair::with(config);
    for number in 1..=3 {
        pair.ask(number, "tools/call", &json!({ "name": "tool" }));
    }
    let [_, _] = pair.sent();
    let [refused] = pair.replies();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(3), &json!(-32000)));
}

#[test]
fn a_server_that_does_not_read_fails_the_call() {
    let mut config = Config::default();
    config.outgoing.messages = 1;
    let mut pair = Pair::with(config);
    for number in 1..=3 {
        pair.ask(number, "tools/call", &json!({ "name": "tool" }));
    }
    let [refused] = pair.replies();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(3), &json!(-32000)));
    assert_eq!(pair.dropped(DropReason::ServerNotReading), 1);
}
