//! Links over HTTP to a scripted server: the exact requests, and unusual responses.

mod modern;
mod script;

use std::{
    iter,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bridge::ConnectError;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{Instant, timeout},
};

use self::script::{
    HttpTest, ITS_ID, LIMIT, MAX_MESSAGE, Received, ScriptedServer, VERSION, accepted, endpoint, error, events, held,
    joined, json_answer, json_text, opened, opened_with, ping, pong, result, status, value, with_header, with_type,
};
use crate::harness::{Kind, call, initialize, no_server};

const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;

fn without_id(text: &str) -> Value {
    let mut message: Value = serde_json::from_str(text).expect("JSON");
    assert!(message["id"].take().is_number());
    message
}

fn header(request: &Received, name: &str) -> String {
    let header = request.headers.iter().find_map(|header| header.strip_prefix(name));
    header.unwrap_or_default().trim_start_matches(": ").to_owned()
}

/// Method, session id and last event id of a request.
fn summary(request: &Received) -> [String; 3] {
    let method = request.line.split(' ').next().unwrap_or_default().to_owned();
    [
        method,
        header(request, "mcp-session-id"),
        header(request, "last-event-id"),
    ]
}

#[tokio::test]
async fn server_receives_only_the_message_and_the_session_headers() {
    let mut test = HttpTest::start([opened("of-the-server"), accepted(), pong()]).await;
    let opening = initialize(VERSION);
    let reply = test.post(opening.clone()).await;
    assert_eq!(reply.kind, Kind::Opened);
    assert!(reply.header("mcp-session-id").is_none());
    assert_eq!(value(reply).await["result"], result(VERSION));
    let seen = test.script.next().await;
    assert_eq!(seen.line, "POST /mcp HTTP/1.1");
    assert_eq!(without_id(&seen.body), without_id(&opening));
    let always = [
        "accept: application/json, text/event-stream",
        "authorization: Bearer token-0",
        "content-type: application/json",
    ];
    assert_eq!(seen.headers, always);

    test.notify("notifications/initialized").await;
    assert_eq!(test.ping(1).await["result"], json!({}));
    let of_session = ["mcp-protocol-version: 2025-06-18", "mcp-session-id: of-the-server"];
    for method in ["notifications/initialized", "ping"] {
        let seen = test.script.next().await;
        assert!(seen.body.contains(method), "in order: {}", seen.body);
        assert_eq!(seen.headers, [&always[..], &of_session[..]].concat());
    }

    let HttpTest { mut script, link, .. } = test;
    drop(link);
    let deleted = script.next().await;
    assert_eq!(deleted.line, "DELETE /mcp HTTP/1.1");
    assert_eq!(
        deleted.headers[1..],
        ["authorization: Bearer token-0", of_session[0], of_session[1]]
    );
}

#[tokio::test]
async fn response_of_many_lines_becomes_one_line() {
    let answer = format!("{{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": \"{ITS_ID}\",\n  \"result\": {{}}\n}}\n");
    let test = HttpTest::open([json_text(&answer)]).await;
    let text = test.post(ping(1)).await.json().await;
    assert!(!text.contains(['\n', '\r']), "{text}");
    let parsed: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(parsed, json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
}

#[tokio::test]
async fn invalid_response_is_an_error_of_its_request() {
    let long = json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": "x".repeat(MAX_MESSAGE) }).to_string();
    let with_other_id = |id: Value| json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string();
    for (answer, expected) in [
        (json_text(&with_other_id(json!(999))), "invalid response"),
        (json_text("nonsense"), "invalid response"),
        (with_type("200 OK", "text/html", "<p>"), "invalid response"),
        (accepted(), "invalid response"),
        (json_text(&long), "too long"),
        (events(&format!("data: {long}\n\n")), "too long"),
        (events("data: {}\n\n"), "broke off"),
        (
            events(&format!(
                "data: {{\"jsonrpc\":\"2.0\",\"id\":\"{ITS_ID}\",\"result\":NaN}}\n\n"
            )),
            "is invalid",
        ),
        (with_header(&json_text("{"), "Content-Length: 99"), "broke off"),
        (status("500 Oops"), "refused"),
        (status("302 Found\r\nLocation: http://127.0.0.1:1/"), "refused"),
        (json_text("[]").replace("200 OK", "409 Conflict"), "refused"),
        (String::new(), "cannot be reached"),
    ] {
        let test = HttpTest::open([answer.clone()]).await;
        let message = test.error(1).await;
        assert!(message.contains(expected), "{message} for {answer}");
    }
}

#[tokio::test]
async fn jsonrpc_error_of_the_server_passes_with_any_status() {
    let error = json!({ "jsonrpc": "2.0", "id": ITS_ID, "error": { "code": -32602, "message": "its own words" } });
    let test = HttpTest::open([json_answer(&error).replace("200 OK", "422 Unprocessable")]).await;
    assert_eq!(test.ping(1).await["error"]["message"], "its own words");
}

#[tokio::test]
async fn failed_handshake_ends_the_link() {
    for answer in [status("503 Later"), status("404 Not Found"), status("401 Unauthorized")] {
        let test = HttpTest::start([answer.clone(), answer]).await;
        let opening = test.begin(initialize(VERSION));
        test.wait_for_end().await;
        test.wants(1).await;
        test.conversation.refuse(&no_server());
        assert_eq!(joined(opening).await.kind, Kind::Unserved);
    }
    // A JSON-RPC error of the server is the response to the handshake.
    let refusal = json!({ "jsonrpc": "2.0", "id": ITS_ID, "error": { "code": -32602, "message": "no" } });
    let test = HttpTest::start([json_answer(&refusal)]).await;
    let reply = test.post(initialize(VERSION)).await;
    assert_eq!(reply.kind, Kind::Answer);
    assert_eq!(value(reply).await["error"]["message"], "no");
}

#[tokio::test]
async fn replay_fails_if_the_server_is_not_there_or_does_not_fit() {
    let test = HttpTest::open([status("503 Later")]).await;
    assert!(matches!(test.connect_another().await, Err(ConnectError::Ended)));
    // The last answer is to DELETE.
    let test = HttpTest::open([opened_with("another", &result("2025-03-26")), accepted()]).await;
    let refused = test.connect_another().await;
    assert!(
        matches!(refused, Err(ConnectError::VersionChanged { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn refused_token_is_replaced_once() {
    let refused = "401 Unauthorized";
    let mut test = HttpTest::open([
        status(refused),
        pong(),
        status(refused),
        status(refused),
        status(refused),
    ])
    .await;
    assert_eq!(test.ping(1).await["id"], 1);
    assert!(test.error(2).await.contains("does not accept"));
    test.tokens.exhausted.store(true, Ordering::Relaxed);
    assert!(test.error(3).await.contains("does not accept"));
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(header(&test.script.next().await, "authorization"));
    }
    let bearer = |number: u32| format!("Bearer token-{number}");
    assert_eq!(tokens, [bearer(0), bearer(1), bearer(1), bearer(2), bearer(2)]);

    // DELETE has the token that was sent last, and asks for none.
    let asked = test.tokens.asked.load(Ordering::Relaxed);
    let HttpTest {
        mut script,
        tokens,
        link,
        ..
    } = test;
    drop(link);
    let delete = script.next().await;
    assert_eq!(delete.line, "DELETE /mcp HTTP/1.1");
    assert_eq!(header(&delete, "authorization"), bearer(2));
    assert_eq!(tokens.asked.load(Ordering::Relaxed), asked);
}

#[tokio::test]
async fn stream_that_ends_early_is_resumed_after_its_last_event() {
    let mut test = HttpTest::open([
        events(&format!("id: 1\nretry: 1\ndata:\n\nid: 2\ndata: {NOTIFICATION}\n\n")),
        events("id: 3\ndata: {\"jsonrpc\":\"2.0\",\n data: 1}\n\n"),
        events(&format!(
            "id: 4\ndata: {{\"jsonrpc\":\"2.0\",\"id\":\"{ITS_ID}\",\ndata: \"result\":{{}}}}\n\n"
        )),
    ])
    .await;
    let mut reply = test.post(ping(1)).await;
    assert!(reply.message().await.contains("notifications/x"));
    let response: Value = serde_json::from_str(&reply.message().await).expect("JSON");
    assert_eq!(response, json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
    for last in ["2", "3"] {
        let seen = test.script.next().await;
        assert_eq!(summary(&seen), ["GET", "of-the-server", last]);
        assert_eq!(header(&seen, "accept"), "text/event-stream");
    }
}

#[tokio::test]
async fn server_request_within_a_stream_gets_the_response_of_the_client() {
    let question = r#"{"jsonrpc":"2.0","id":"s1","method":"elicitation/create","params":{}}"#;
    // The script has no further response: the next two requests may arrive in either order.
    let mut test = HttpTest::open([events(&format!("id: 1\nretry: 1\ndata: {question}\n\n"))]).await;
    let mut reply = test.post(call(1)).await;
    let asked: Value = serde_json::from_str(&reply.message().await).expect("JSON");
    assert_eq!(asked["method"], "elicitation/create");
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "accept" } });
    assert_eq!(test.post(answer.to_string()).await.status, 202);
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
    let mut rest = [test.script.next().await, test.script.next().await];
    rest.sort_by(|one, other| one.line.cmp(&other.line));
    assert_eq!(rest[0].line, "GET /mcp HTTP/1.1");
    let received: Value = serde_json::from_str(&rest[1].body).expect("JSON");
    assert_eq!(
        received,
        json!({ "jsonrpc": "2.0", "id": "s1", "result": { "action": "accept" } })
    );
}

#[tokio::test]
async fn resumptions_of_a_stream_are_limited() {
    let primed = "id: 1\nretry: 1\ndata:\n\n";
    let test = HttpTest::open(iter::repeat_n(events(primed), 20)).await;
    assert!(test.error(1).await.contains("broke off"));
}

#[tokio::test]
async fn polling_continues_while_event_ids_progress() {
    let silent = (1..=7).map(|n| events(&format!("id: {n}\nretry: 0\ndata:\n\n")));
    let answer = json!({ "jsonrpc": "2.0", "id": ITS_ID, "result": {} });
    let test = HttpTest::open(silent.chain([events(&format!("data: {answer}\n\n"))])).await;
    assert_eq!(test.ping(1).await["result"], json!({}));
}

#[tokio::test]
async fn server_messages_are_read_only_while_a_client_listens() {
    let heard = format!("id: 1\nretry: 1\ndata: {NOTIFICATION}\n\n");
    let mut test = HttpTest::open([events(&heard), status("405 Method Not Allowed"), pong()]).await;
    let mut listening = test.get().await;
    assert!(listening.message().await.contains("notifications/x"));
    assert_eq!(summary(&test.script.next().await), ["GET", "of-the-server", ""]);
    // The stream has ended and is resumed; then the server answers that there is none.
    assert_eq!(summary(&test.script.next().await), ["GET", "of-the-server", "1"]);
    drop(listening);
    let _listening = test.get().await;
    assert_eq!(test.ping(1).await["id"], 1);
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
}

#[tokio::test]
async fn server_messages_are_read_while_there_are_subscriptions() {
    let mut test = HttpTest::open([pong()]).await;
    let subscribe = json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": { "uri": "a:b" } });
    assert_eq!(value(test.post(subscribe.to_string()).await).await["result"], json!({}));
    assert_eq!(test.script.next().await.line, "POST /mcp HTTP/1.1");
    assert_eq!(test.script.next().await.line, "GET /mcp HTTP/1.1");
}

#[tokio::test]
async fn empty_listening_stream_is_reopened_more_slowly_each_time() {
    let silent = events(": nothing\nretry: 0\n\n");
    let mut test = HttpTest::open([silent.clone(), silent, status("405 Method Not Allowed")]).await;
    let _listening = test.get().await;
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
    let heard = events(&format!("id: 7\ndata: {NOTIFICATION}\n\n"));
    let mut test = HttpTest::open([
        heard.clone(),
        status("404 Not Found"),
        opened("another"),
        accepted(),
        heard,
        status("400 Bad Request"),
        // The session is still known.
        pong(),
        status("405 Method Not Allowed"),
    ])
    .await;
    let _listening = test.get().await;
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(summary(&test.script.next().await));
    }
    let expected = [
        ["GET", "of-the-server", ""],
        ["GET", "of-the-server", "7"],
        ["POST", "", ""],
        ["POST", "another", ""],
        // Started again in the new session, and again after a refusal.
        ["GET", "another", ""],
        ["GET", "another", "7"],
        ["POST", "another", ""],
        ["GET", "another", ""],
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn forbidden_request_renews_no_token() {
    let test = HttpTest::open([status("403 Forbidden"), pong()]).await;
    assert!(test.error(1).await.contains("does not accept"));
    assert_eq!(test.ping(2).await["id"], 2);
    assert_eq!(test.tokens.renewals.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn forgotten_session_is_reopened_with_its_settings() {
    for forgotten in ["404 Not Found", "400 Bad Request"] {
        // A server that answers 400 is asked whether it is the session.
        let asked = forgotten.starts_with("400").then(|| status(forgotten));
        let answers = [pong(), status(forgotten)].into_iter().chain(asked.clone());
        let mut test = HttpTest::open(answers.chain([opened("another"), accepted(), pong(), pong()])).await;
        let level = json!({ "jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": { "level": "debug" } });
        assert_eq!(value(test.post(level.to_string()).await).await["result"], json!({}));
        assert_eq!(test.ping(2).await["result"], json!({}));
        let mut seen = Vec::new();
        for _ in 0..6 + asked.iter().len() {
            let request = test.script.next().await;
            let message: Value = serde_json::from_str(&request.body).expect("JSON");
            let method = message["method"].as_str().expect("a method").to_owned();
            seen.push((method, header(&request, "mcp-session-id")));
        }
        let mut expected = vec![("logging/setLevel", "of-the-server"), ("ping", "of-the-server")];
        expected.extend(asked.map(|_| ("ping", "of-the-server")));
        expected.extend([("initialize", ""), ("notifications/initialized", "another")]);
        let (first, last) = seen.split_at_mut(expected.len());
        assert_eq!(
            first.iter().map(|(method, id)| (&**method, &**id)).collect::<Vec<_>>(),
            expected
        );
        // In any order.
        last.sort();
        let expected = ["logging/setLevel", "ping"].map(|method| (method.to_owned(), "another".to_owned()));
        assert_eq!(last, expected);
    }
}

#[tokio::test]
async fn refused_message_reopens_no_session() {
    let mut test = HttpTest::open([status("400 Bad Request"), pong(), pong()]).await;
    assert!(test.error(1).await.contains("refused"));
    assert_eq!(test.ping(2).await["result"], json!({}));
    for _ in 0..3 {
        assert_eq!(summary(&test.script.next().await), ["POST", "of-the-server", ""]);
    }
}

#[tokio::test]
async fn reopening_completes_after_its_request_is_cancelled() {
    let mut test = HttpTest::open([
        status("404 Not Found"),
        held(&opened("another")),
        accepted(),
        status("404 Not Found"),
        // The response to `notifications/initialized`.
        accepted(),
        pong(),
    ])
    .await;
    let cancelled = test.begin(ping(1));
    assert!(test.script.next().await.body.contains("ping"));
    assert!(test.script.next().await.body.contains("initialize"));
    test.cancel(1).await;
    assert!(error(joined(cancelled).await, 1).await.contains("cancelled"));
    assert!(test.script.next().await.body.contains("cancelled"));
    // This request still has the old session id, and joins the reopening in progress.
    let joining = test.begin(ping(2));
    assert!(test.script.next().await.body.contains("ping"));
    test.script.gate.add_permits(1);
    assert_eq!(value(joined(joining).await).await["id"], 2);
    assert!(test.script.next().await.body.contains("notifications/initialized"));
    assert!(test.script.next().await.body.contains("ping"));
    let HttpTest { mut script, link, .. } = test;
    drop(link);
    assert_eq!(summary(&script.next().await), ["DELETE", "another", ""]);
}

#[tokio::test]
async fn call_of_a_session_that_cannot_be_reopened_waits_for_another_link() {
    let other = opened_with("another", &result("2025-03-26"));
    let test = HttpTest::open([status("404 Not Found"), other]).await;
    let waiting = test.begin(call(1));
    test.wait_for_end().await;
    test.wants(1).await;
    let script = ScriptedServer::start([opened("third"), accepted(), pong()]).await;
    let link = test
        .conversation
        .connect_http(2, script.endpoint(), Arc::clone(&test.tokens) as _)
        .await;
    test.conversation.attach(2);
    assert_eq!(value(joined(waiting).await).await["result"], json!({}));
    drop(link);
}

#[tokio::test]
async fn call_that_was_not_sent_waits_for_another_link() {
    let answers = [accepted(), opened("another"), accepted(), pong()];
    let mut test = HttpTest::open(answers).await;
    test.tokens.stuck.store(true, Ordering::Relaxed);
    let asked = test.tokens.asked.load(Ordering::Relaxed);
    let waiting = test.begin(call(1));
    // The link has taken it.
    while test.tokens.asked.load(Ordering::Relaxed) == asked {
        tokio::task::yield_now().await;
    }
    timeout(LIMIT, test.link.close()).await.expect("the end");
    assert_eq!(summary(&test.script.next().await), ["DELETE", "of-the-server", ""]);
    test.wants(1).await;
    let _link = test.connect_another().await.expect("a good replay");
    assert_eq!(value(joined(waiting).await).await["result"], json!({}));
}

#[tokio::test]
async fn call_that_was_sent_is_not_sent_again() {
    let mut test = HttpTest::open([]).await;
    let sent = test.begin(call(1));
    assert!(test.script.next().await.body.contains("tools/call"));
    let HttpTest { link, conversation, .. } = test;
    drop(link);
    assert!(error(joined(sent).await, 1).await.contains("not known"));
    drop(conversation);
}

#[tokio::test]
async fn unreachable_server_is_an_error_and_ends_no_link() {
    let test = HttpTest::open([pong()]).await;
    assert_eq!(test.ping(1).await["id"], 1);
    let HttpTest {
        script,
        conversation,
        link,
        ..
    } = test;
    drop(script);
    let reply = crate::harness::post(&conversation, call(2)).await;
    assert!(error(reply, 2).await.contains("cannot be reached"));
    assert!(!link.done().is_cancelled());
}

#[tokio::test]
async fn slow_notification_does_not_delay_requests() {
    let mut test = HttpTest::open([held(&accepted()), pong(), held(&pong()), accepted()]).await;
    test.notify("notifications/x").await;
    assert!(test.script.next().await.body.contains("notifications/x"));
    assert_eq!(test.ping(1).await["id"], 1);
    test.script.next().await;
    let cancelled = test.begin(ping(2));
    test.script.next().await;
    // The request ends at once; the server receives the cancellation later: messages keep their
    // order.
    test.cancel(2).await;
    assert!(error(joined(cancelled).await, 2).await.contains("cancelled"));
    assert!(test.script.seen.is_empty());
    test.script.gate.add_permits(2);
    assert!(test.script.next().await.body.contains("notifications/cancelled"));
}

#[tokio::test]
async fn tls_connections_offer_only_http_1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = endpoint(&format!("https://{}/mcp", listener.local_addr().expect("bound")));
    let hello = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // RFC 8446, section 5.1: a record has its length in the last two of the first five bytes.
        let mut head = [0; 5];
        stream.read_exact(&mut head).await.expect("a record");
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut record).await.expect("a record");
        record
    };
    let (record, probed) = tokio::join!(hello, endpoint.probe());
    probed.expect_err("no MCP server");
    // RFC 7301, section 3.1: each protocol name follows its length.
    let offers = |name: &[u8]| record.windows(name.len()).any(|window| window == name);
    assert!(!offers(b"\x02h2"));
}
