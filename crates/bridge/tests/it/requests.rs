//! Requests and their responses.

use std::time::Duration;

use bridge::{Config, DropReason};

use crate::harness::{Sse, bridge, bridge_with, call, get, post, start_post, until};

#[tokio::test(start_paused = true)]
async fn a_response_that_comes_first_is_json() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, r#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#);
    let (id, line) = server.request().await;
    assert_eq!(line, format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#));
    server
        .write(&format!(
            r#"{{ "result": {{"n":1.0,"é":"\u00e9"}}, "id": {id},"jsonrpc":"2.0","x":0}}"#
        ))
        .await;
    let reply = reply.await.expect("no panic");
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json().await,
        r#"{ "result": {"n":1.0,"é":"\u00e9"}, "id": "a","jsonrpc":"2.0","x":0}"#
    );
}

#[tokio::test(start_paused = true)]
async fn responses_match_their_requests_in_any_order_with_any_ids() {
    let (bridge, mut server) = bridge().await;
    let ids = ["1", "\"1\"", "0", "1.5", "\"\"", "-7", "\"2\"", "2"];
    let mut replies = Vec::new();
    let mut numbers = Vec::new();
    for id in ids {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"for":{id}}}}}"#);
        replies.push(start_post(&bridge, body));
        let (number, line) = server.request().await;
        assert!(line.ends_with(&format!(r#""params":{{"for":{id}}}}}"#)), "{line}");
        numbers.push((number, id));
    }
    for (number, id) in numbers.into_iter().rev() {
        server.result(number, &format!("{{\"for\":{id}}}")).await;
    }
    for (id, reply) in ids.into_iter().zip(replies) {
        let text = reply.await.expect("no panic").json().await;
        assert_eq!(
            text,
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"for":{id}}}}}"#)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_before_the_response_starts_a_stream_that_ends_with_the_response() {
    let (bridge, mut server) = bridge().await;
    let body = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"_meta":{"progressToken":0}}}"#;
    let reply = start_post(&bridge, body);
    let (id, _) = server.request().await;
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    server.write(&progress(&id.to_string())).await;
    let mut reply = reply.await.expect("no panic");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    assert_eq!(reply.next().await, Sse::Prime);
    assert_eq!(reply.next().await, Sse::Message(progress("0")));
    server.result(id, "{}").await;
    assert_eq!(
        reply.next().await,
        Sse::Message(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#.into())
    );
    assert_eq!(reply.next().await, Sse::End);
}

#[tokio::test(start_paused = true)]
async fn silence_starts_a_stream_with_keep_alive_comments() {
    let (bridge, mut server) = bridge().await;
    let start = tokio::time::Instant::now();
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    let mut reply = reply.await.expect("no panic");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    // The first byte comes at once, and comments come within the timeout of any proxy.
    for (expected, at) in [(Sse::Prime, 1), (Sse::Comment, 16), (Sse::Comment, 31)] {
        assert_eq!(reply.next().await, expected);
        assert_eq!(start.elapsed().as_secs(), at);
    }
    server.result(id, "1").await;
    assert_eq!(reply.messages().await, [r#"{"jsonrpc":"2.0","id":1,"result":1}"#]);
}

#[tokio::test(start_paused = true)]
async fn progress_goes_to_the_request_with_its_token() {
    let (bridge, mut server) = bridge().await;
    let mut listener = get(&bridge).await;
    let mut replies = Vec::new();
    let mut numbers = Vec::new();
    for token in ["0", "\"0\"", "7"] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"{}","method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#,
            replies.len()
        );
        replies.push(start_post(&bridge, body));
        // Toward the server, the token is the number of the request.
        let (number, line) = server.request().await;
        assert!(line.contains(&format!(r#""progressToken":{number}}}"#)), "{line}");
        numbers.push(number);
    }
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    for number in numbers.iter().rev().chain(&[99]) {
        server.write(&progress(&number.to_string())).await;
    }
    for number in numbers {
        server.result(number, "{}").await;
        // Progress of a request that is over.
        server.write(&progress(&number.to_string())).await;
    }
    for (token, reply) in ["0", "\"0\"", "7"].into_iter().zip(replies) {
        let messages = reply.await.expect("no panic").messages().await;
        assert_eq!((messages.len(), &messages[0]), (2, &progress(token)));
    }
    until(|| server.dropped(DropReason::UnmatchedProgress) == 4).await;
    server.write(r#"{"jsonrpc":"2.0","method":"n"}"#).await;
    assert_eq!(listener.message().await, r#"{"jsonrpc":"2.0","method":"n"}"#);
}

#[tokio::test(start_paused = true)]
async fn notifications_are_accepted_and_keep_their_order() {
    let (bridge, mut server) = bridge().await;
    let bodies = [
        r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/x","params":[1,2.50]}"#,
    ];
    for body in bodies {
        let reply = post(&bridge, body).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (202, None));
        assert_eq!(reply.text().await, "");
    }
    for body in bodies {
        assert_eq!(server.line().await, body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pretty_printed_body_becomes_one_line() {
    let (bridge, mut server) = bridge().await;
    let body = "\r\n{\n\t\"jsonrpc\": \"2.0\",\r\n  \"method\": \"n\",\n  \"params\": {\"t\": \"a\\nb\"}\n}\n";
    assert_eq!(post(&bridge, body).await.status, 202);
    let line = server.line().await;
    let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(message["params"]["t"], "a\nb");
    assert!(server.receives_nothing(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn line_breaks_of_the_server_do_not_break_events() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    server.raw(b"{\"jsonrpc\":\"2.0\",\r\"method\":\"n\"}\r\n\r\n\n").await;
    server.result(id, "{}").await;
    let messages = reply.await.expect("no panic").messages().await;
    assert_eq!(
        messages,
        [
            "{\"jsonrpc\":\"2.0\", \"method\":\"n\"} ",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_carries_the_id_that_the_server_knows() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, r#"{"jsonrpc":"2.0","id":"x","method":"m"}"#);
    let (id, _) = server.request().await;
    let cancel = |raw: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{raw},"reason":"r"}}}}"#)
    };
    // This client has no such request, although the server has one of this number.
    assert_eq!(post(&bridge, cancel(&id.to_string())).await.status, 202);
    assert_eq!(post(&bridge, cancel("\"x\"")).await.status, 202);
    assert_eq!(server.line().await, cancel(&id.to_string()));
    assert!(server.receives_nothing(Duration::from_secs(60)).await);
    assert_eq!(server.dropped(DropReason::UnmatchedClientMessage), 1);
    // A server should not answer a cancelled request, so the bridge does.
    let messages = reply.await.expect("no panic").messages().await;
    assert_eq!(
        messages,
        [r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32000,"message":"the request was cancelled"}}"#]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_without_response_fails_after_the_grace() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(4));
    server.request().await;
    let mut reply = reply.await.expect("no panic");
    let start = tokio::time::Instant::now();
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#;
    assert_eq!(post(&bridge, cancel).await.status, 202);
    assert!(reply.message().await.contains("the request was cancelled"));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(reply.next().await, Sse::End);
    let again = start_post(&bridge, call(4));
    server.line().await;
    let (number, _) = server.request().await;
    server.result(number, "{}").await;
    assert_eq!(again.await.expect("no panic").status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_gets_a_response_within_the_grace() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(4));
    let (id, _) = server.request().await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#;
    assert_eq!(post(&bridge, cancel).await.status, 202);
    server.line().await;
    server.result(id, "1").await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":4,"result":1}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_does_not_cancel() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    reply.abort();
    assert!(reply.await.is_err());
    assert!(server.receives_nothing(Duration::from_secs(60)).await);
    server.result(id, "{}").await;
    until(|| server.dropped(DropReason::ClientGone) == 1).await;
    // The id is free again.
    let again = start_post(&bridge, call(1));
    let (number, _) = server.request().await;
    assert_ne!(number, id);
    server.result(number, "\"new\"").await;
    assert_eq!(
        again.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":"new"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn an_equal_request_takes_the_answer_of_one_whose_client_is_gone() {
    let (bridge, mut server) = bridge().await;
    let first = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    first.abort();
    assert!(first.await.is_err());
    let again = start_post(&bridge, call(1));
    assert!(server.receives_nothing(Duration::from_millis(500)).await);
    server.result(id, "\"late\"").await;
    assert_eq!(
        again.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":"late"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn another_request_replaces_one_whose_client_is_gone() {
    let (bridge, mut server) = bridge().await;
    let first = start_post(&bridge, call(1));
    let (old, _) = server.request().await;
    first.abort();
    assert!(first.await.is_err());
    let other = start_post(
        &bridge,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#,
    );
    let cancelled = server.line().await;
    assert!(
        cancelled.contains("notifications/cancelled") && cancelled.contains(&format!("\"requestId\":{old}")),
        "{cancelled}"
    );
    let (new, line) = server.request().await;
    assert!(line.contains(r#""name":"x""#), "{line}");
    server.result(old, "\"old\"").await;
    server.result(new, "\"new\"").await;
    assert_eq!(
        other.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":"new"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_times_out_gets_an_error_and_is_cancelled() {
    let config = Config {
        request_timeout: Duration::from_secs(100),
        ..Config::default()
    };
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let start = tokio::time::Instant::now();
    let reply = start_post(&bridge, r#"{"jsonrpc":"2.0","id":"slow","method":"m"}"#);
    let (id, _) = server.request().await;
    let messages = reply.await.expect("no panic").messages().await;
    assert_eq!(start.elapsed(), Duration::from_secs(100));
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].starts_with(r#"{"jsonrpc":"2.0","id":"slow","error":{"code":-32001,"#),
        "{messages:?}"
    );
    let cancel = server.line().await;
    assert!(
        cancel.contains("notifications/cancelled") && cancel.contains(&format!("\"requestId\":{id}")),
        "{cancel}"
    );
    // A response after the timeout matches no request.
    server.result(id, "{}").await;
    let next = start_post(&bridge, call(1));
    let (other, _) = server.request().await;
    server.result(other, "{}").await;
    next.await.expect("no panic");
    assert_eq!(server.dropped(DropReason::UnmatchedResponse), 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_response_passes_unchanged() {
    let (bridge, mut server) = bridge_with(Config::default(), 4096).await;
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    let text = format!("\"{}\"", "tool ".repeat(1 << 20));
    server.result(id, &text).await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{text}}}"#)
    );
}
