//! Questions of a server in the middle of a call.

use std::time::Duration;

use bridge::ParkedCalls;
use serde_json::json;

use super::{accept, ask, bridge, bridge_with, call, config, json_of, list_tools, park, request, retry, rotate, start};
use crate::harness::until;

#[tokio::test(start_paused = true)]
async fn two_rounds_of_questions_end_in_the_result() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let reply = start(&bridge, first.clone());
    list_tools(&mut server, "").await;
    let (id, _) = server.request().await;
    ask(&mut server, 5, "who?", Some("user_name")).await;
    let asked = json_of(reply).await;
    assert_eq!(
        (asked["id"].as_u64(), asked["result"]["resultType"].as_str()),
        (Some(1), Some("input_required"))
    );
    assert_eq!(
        asked["result"]["inputRequests"],
        json!({ "user_name": { "method": "elicitation/create", "params": {
            "message": "who?", "requestedSchema": { "type": "object", "properties": {} } } } })
    );
    assert_eq!(bridge.in_flight(1), 2, "the call and the question");

    let reply = start(&bridge, retry(&first, "b", &asked, json!({ "user_name": accept("x") })));
    assert_eq!(
        server.line().await,
        r#"{"jsonrpc":"2.0","id":5,"result":{"action":"accept","content":{"text":"x"}}}"#
    );
    ask(&mut server, 6, "sure?", None).await;
    let again = json_of(reply).await;
    assert_eq!(again["id"], "b");
    assert_ne!(again["result"]["requestState"], asked["result"]["requestState"]);
    assert!(again["result"]["inputRequests"]["elicitation-2"].is_object(), "{again}");

    let reply = start(
        &bridge,
        retry(&first, 3, &again, json!({ "elicitation-2": { "action": "decline" } })),
    );
    assert_eq!(
        server.line().await,
        r#"{"jsonrpc":"2.0","id":6,"result":{"action":"decline"}}"#
    );
    server.result(id, r#"{"content":[]}"#).await;
    let done = json_of(reply).await;
    assert_eq!(
        (done["id"].as_u64(), done["result"]["resultType"].as_str()),
        (Some(3), Some("complete"))
    );
    assert_eq!(bridge.in_flight(1), 0);
}

#[tokio::test(start_paused = true)]
async fn questions_at_once_go_to_the_client_together() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let reply = start(&bridge, first.clone());
    list_tools(&mut server, "").await;
    let (id, _) = server.request().await;
    for question in 5..8 {
        ask(&mut server, question, "?", None).await;
    }
    let asked = json_of(reply).await;
    let requests = asked["result"]["inputRequests"].as_object().expect("a map");
    assert_eq!(requests.len(), 3);
    // What is valid is delivered, and the rest is asked again.
    let answers = json!({ "elicitation-1": accept("1"), "elicitation-2": { "no": "action" }, "other": accept("x") });
    let reply = start(&bridge, retry(&first, 2, &asked, answers));
    assert!(server.line().await.contains(r#""id":5,"#));
    let rest = json_of(reply).await;
    let requests = rest["result"]["inputRequests"].as_object().expect("a map");
    assert_eq!(requests.keys().collect::<Vec<_>>(), ["elicitation-2", "elicitation-3"]);
    let answers = json!({ "elicitation-2": accept("2"), "elicitation-3": accept("3") });
    let reply = start(&bridge, retry(&first, 3, &rest, answers));
    assert!(server.line().await.contains(r#""id":6,"#));
    assert!(server.line().await.contains(r#""id":7,"#));
    server.result(id, "{}").await;
    assert_eq!(json_of(reply).await["id"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_ready_answer_counts_for_a_key_that_the_server_names() {
    let (bridge, mut server) = bridge().await;
    let ready = call(1, "t").with_param(
        "inputResponses",
        json!({ "user_name": accept("x"), "elicitation-2": accept("no") }),
    );
    let reply = start(&bridge, ready);
    list_tools(&mut server, "").await;
    server.request().await;
    ask(&mut server, 5, "who?", Some("user_name")).await;
    assert!(server.line().await.contains(r#""id":5,"result":{"action":"accept""#));
    ask(&mut server, 6, "sure?", None).await;
    assert!(json_of(reply).await["result"]["inputRequests"]["elicitation-2"].is_object());
}

#[tokio::test(start_paused = true)]
async fn a_state_is_good_for_one_request_and_one_set_of_answers() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let (id, asked) = park(&bridge, &mut server, &first).await;
    let answers = json!({ "elicitation-1": accept("1") });

    let tampered = format!(
        "{}-TAMPERED",
        asked["result"]["requestState"].as_str().expect("a state")
    );
    let good = retry(&first, 2, &asked, answers.clone());
    for wrong in [
        good.clone().with_param("requestState", tampered),
        good.clone().with_param("requestState", ""),
        good.clone().with_param("requestState", 7),
        good.clone().with_param("arguments", json!({ "a": 2 })),
        good.clone().with_param("name", "u"),
        good.clone().with_param("inputResponses", json!(null)),
    ] {
        let reply = start(&bridge, wrong).await.expect("no panic");
        assert_eq!(reply.status, 400);
        assert_eq!(reply.error().await["error"]["code"], -32602);
    }

    let one = start(&bridge, good.clone());
    assert!(server.line().await.contains(r#""id":5,"#));
    // The same answers twice at once: both get the outcome. Other answers do not.
    let mut twin = good.clone();
    twin.id = json!("twin");
    let twin = start(&bridge, twin);
    let other = retry(&first, 4, &asked, json!({ "elicitation-1": accept("2") }));
    let spent = start(&bridge, other.clone()).await.expect("no panic").error().await;
    assert_eq!(spent["error"]["data"], json!({ "reason": "spent" }));
    server.result(id, r#"{"content":[1]}"#).await;
    assert_eq!(json_of(one).await["result"]["content"], json!([1]));
    assert_eq!(
        json_of(twin).await,
        json_of(start(&bridge, {
            let mut late = good.clone();
            late.id = json!("twin");
            late
        }))
        .await
    );
    assert_eq!(start(&bridge, other).await.expect("no panic").status, 400);
    // The outcome is kept for a minute.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let gone = start(&bridge, good).await.expect("no panic").error().await;
    assert_eq!(gone["error"]["data"], json!({ "reason": "lost" }));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_retried_is_cancelled() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let (id, asked) = park(&bridge, &mut server, &first).await;
    let begun = tokio::time::Instant::now();
    assert!(server.line().await.contains(r#""id":5,"error""#));
    assert_eq!(begun.elapsed().as_secs(), 300);
    let cancelled = server.line().await;
    assert!(cancelled.contains(&format!(r#""requestId":{id}"#)), "{cancelled}");
    let late = start(&bridge, retry(&first, 2, &asked, json!({})));
    assert_eq!(late.await.expect("no panic").status, 400);
    assert_eq!(bridge.in_flight(1), 0);
}

#[tokio::test(start_paused = true)]
async fn a_parked_call_stays_with_its_server() {
    let (bridge, mut old) = bridge().await;
    let first = call(1, "t");
    let (id, asked) = park(&bridge, &mut old, &first).await;
    let (_link, mut new) = rotate(&bridge, 2).await;
    assert!(new.line().await.contains("notifications/initialized"));
    let (probe, _) = new.request().await;
    new.result(probe, r#"{"tools":[]}"#).await;
    assert_eq!((bridge.in_flight(1), bridge.in_flight(2)), (2, 0));
    let reply = start(
        &bridge,
        retry(&first, 2, &asked, json!({ "elicitation-1": accept("1") })),
    );
    assert!(old.line().await.contains(r#""id":5,"#));
    old.result(id, r#"{"content":["old"]}"#).await;
    assert_eq!(json_of(reply).await["result"]["content"], json!(["old"]));
}

#[tokio::test(start_paused = true)]
async fn a_parked_call_is_lost_with_its_server() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let (_, asked) = park(&bridge, &mut server, &first).await;
    drop(server);
    until(|| bridge.in_flight(1) == 0).await;
    let lost = start(
        &bridge,
        retry(&first, 2, &asked, json!({ "elicitation-1": accept("1") })),
    );
    let lost = json_of(lost).await;
    assert_eq!(lost["error"]["code"], -32602);
    assert_eq!(lost["error"]["data"], json!({ "reason": "lost" }));
}

#[tokio::test(start_paused = true)]
async fn a_question_belongs_to_the_call_that_is_known_to_ask() {
    let (bridge, mut server) = bridge().await;
    let asking = call(1, "asks");
    let (id, asked) = park(&bridge, &mut server, &asking).await;
    // A call that began later runs while the first one goes on and asks once more.
    let reply = start(
        &bridge,
        retry(&asking, 2, &asked, json!({ "elicitation-1": accept("1") })),
    );
    assert!(server.line().await.contains(r#""id":5,"#));
    let slow = start(&bridge, call(3, "slow"));
    let (slow_id, _) = server.request().await;
    ask(&mut server, 6, "again?", None).await;
    let again = json_of(reply).await;
    assert_eq!(again["result"]["resultType"], "input_required");
    server.result(slow_id, r#"{"content":["slow"]}"#).await;
    assert_eq!(json_of(slow).await["result"]["content"], json!(["slow"]));
    let reply = start(
        &bridge,
        retry(&asking, 4, &again, json!({ "elicitation-2": accept("2") })),
    );
    assert!(server.line().await.contains(r#""id":6,"#));
    server.result(id, "{}").await;
    assert_eq!(json_of(reply).await["id"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_while_it_is_parked_keeps_its_result_for_the_retry() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let (id, asked) = park(&bridge, &mut server, &first).await;
    server
        .write(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#)
        .await;
    server.result(id, r#"{"content":["gave up"]}"#).await;
    until(|| bridge.in_flight(1) == 0).await;
    let reply = start(
        &bridge,
        retry(&first, 2, &asked, json!({ "elicitation-1": accept("late") })),
    );
    assert_eq!(json_of(reply).await["result"]["content"], json!(["gave up"]));
}

#[tokio::test(start_paused = true)]
async fn parked_calls_beyond_the_limit_end_the_oldest() {
    let config = bridge::Config {
        max_parked: 1,
        ..config()
    };
    let (bridge, mut server) = bridge_with(config).await;
    let first = call(1, "t");
    let (oldest, _) = park(&bridge, &mut server, &first).await;
    let reply = start(&bridge, call(2, "u"));
    server.request().await;
    ask(&mut server, 6, "?", None).await;
    assert!(server.line().await.contains(r#""id":5,"error""#));
    assert!(server.line().await.contains(&format!(r#""requestId":{oldest}"#)));
    assert_eq!(json_of(reply).await["result"]["resultType"], "input_required");
}

#[tokio::test(start_paused = true)]
async fn parked_calls_of_all_conversations_have_one_limit() {
    let config = bridge::Config {
        parked_calls: ParkedCalls::new(1),
        ..config()
    };
    let parked = config.parked_calls.clone();
    let (one, mut server) = bridge_with(config.clone()).await;
    let first = call(1, "t");
    let (_, asked) = park(&one, &mut server, &first).await;
    assert_eq!(parked.count(), 1);

    // The other conversation has none to end for its own: its server gets an error.
    let (other, mut other_server) = bridge_with(config).await;
    let reply = start(&other, call(1, "t"));
    list_tools(&mut other_server, "").await;
    let (id, _) = other_server.request().await;
    ask(&mut other_server, 5, "?", None).await;
    assert!(other_server.line().await.contains(r#""id":5,"error""#));
    other_server.result(id, r#"{"content":[]}"#).await;
    assert_eq!(json_of(reply).await["result"]["resultType"], "complete");

    drop(start(
        &one,
        retry(&first, 2, &asked, json!({ "elicitation-1": accept("1") })),
    ));
    assert!(server.line().await.contains(r#""id":5,"result""#));
    assert_eq!(parked.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_early_question_waits_for_a_call_and_others_get_an_error() {
    let (bridge, mut server) = bridge().await;
    ask(&mut server, 5, "early", None).await;
    let lists = start(&bridge, request(1, "prompts/list", json!({}), json!({})));
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, _) = server.request().await;
    server.result(id, r#"{"prompts":[]}"#).await;
    json_of(lists).await;
    let reply = start(&bridge, call(2, "t"));
    let (id, _) = server.request().await;
    server.result(id, r#"{"tools":[]}"#).await;
    server.request().await;
    let asked = json_of(reply).await;
    assert_eq!(
        asked["result"]["inputRequests"]["elicitation-1"]["params"]["message"],
        "early"
    );
    drop(start(
        &bridge,
        retry(&call(2, "t"), 3, &asked, json!({ "elicitation-1": accept("x") })),
    ));
    assert!(server.line().await.contains(r#""id":5,"#));
}

#[tokio::test(start_paused = true)]
async fn urls_to_visit_are_asked_and_the_call_begins_anew() {
    let (bridge, mut server) = bridge().await;
    let capabilities = json!({ "elicitation": { "url": {} } });
    let first = request(1, "tools/call", json!({ "name": "t" }), capabilities);
    let reply = start(&bridge, first.clone());
    list_tools(&mut server, "").await;
    let (id, _) = server.request().await;
    let data = json!({ "elicitations": [{ "mode": "url", "elicitationId": "e", "url": "https://x.example/", "message": "m" }] });
    let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32042, "message": "visit", "data": data } });
    server.write(&error.to_string()).await;
    let asked = json_of(reply).await;
    assert_eq!(
        asked["result"]["inputRequests"]["elicitation-1"]["params"],
        json!({ "mode": "url", "url": "https://x.example/", "message": "m" })
    );
    let reply = start(
        &bridge,
        retry(&first, 2, &asked, json!({ "elicitation-1": { "action": "accept" } })),
    );
    let (id, line) = server.request().await;
    assert!(line.contains("tools/call") && !line.contains("requestState"), "{line}");
    server.result(id, "{}").await;
    assert_eq!(json_of(reply).await["result"]["resultType"], "complete");
}
