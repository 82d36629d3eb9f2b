//! Which session a request reaches, and the answer if it reaches none.

use http::{Method, StatusCode};
use session::{Config, UnknownStatus, ports::UserId};

use crate::harness::{Harness, INITIALIZED, body_text, durable, rpc, session_id};

#[tokio::test(start_paused = true)]
async fn session_id_selects_the_backend() {
    let harness = Harness::plain(Config::default());
    let (a, b) = (harness.open("ann/x").await, harness.open("bob/x").await);
    let backends = harness.spawner.backends();
    let pings = |index: usize| {
        let requests = backends[index].requests();
        requests
            .iter()
            .filter(|request| request.body().ends_with(br#""ping"}"#))
            .count()
    };
    for (who, id, request) in [("ann/x", &a, "10"), ("bob/x", &b, "20"), ("ann/x", &a, "11")] {
        let (status, body) = harness.exchange(who, Some(id), &rpc(request, "ping")).await;
        assert_eq!(status, 200);
        assert!(body.contains(&format!(r#""id":{request}"#)), "{body}");
    }
    assert_eq!((pings(0), pings(1)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn body_of_a_request_with_a_session_is_passed_on_unchanged() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    let odd = "[ {\"what\": 1} ,2]\n";
    assert_eq!(harness.exchange("ann/x", Some(&id), odd).await.0, 200);
    let requests = harness.spawner.last_backend().requests();
    assert_eq!(requests.last().expect("a request").body(), odd);
}

#[tokio::test(start_paused = true)]
async fn session_serves_its_own_grant_only() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    for other in ["bob/x", "ann/y"] {
        let (status, body) = harness.exchange(other, Some(&id), &rpc("5", "ping")).await;
        assert_eq!(status, 403);
        assert!(body.contains(r#""id":5"#), "{body}");
        assert_eq!(harness.delete(other, &id).await, StatusCode::FORBIDDEN);
    }
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_410_or_404_as_configured_and_ended_ids_are_404() {
    for (unknown_status, status) in [(UnknownStatus::Gone, 410), (UnknownStatus::NotFound, 404)] {
        let harness = Harness::plain(Config {
            unknown_status,
            ..durable()
        });
        let (deleted, revoked) = (harness.open("ann/x").await, harness.open("bob/x").await);
        for unknown in [&"0".repeat(48), &"Z".repeat(48), "short", &"f".repeat(5000)] {
            for rpc_id in ["0", r#""s""#] {
                for method in ["ping", "initialize"] {
                    let (actual, body) = harness.exchange("ann/x", Some(unknown), &rpc(rpc_id, method)).await;
                    assert_eq!(actual, status);
                    assert!(body.contains(&format!(r#""id":{rpc_id},"error""#)), "{body}");
                }
            }
        }
        assert_eq!(
            harness.spawner.spawn_count(),
            2,
            "initialize with an unknown id spawns nothing"
        );
        harness.delete("ann/x", &deleted).await;
        harness.registry.end_user(&UserId("bob".into())).await;
        for (who, id) in [("ann/x", &deleted), ("bob/x", &revoked)] {
            let (actual, body) = harness.ping(who, id).await;
            assert_eq!(actual, 404);
            assert!(body.contains(r#""id":77,"error""#), "{body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_session_ids_select_no_session() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    let mut request = harness.request(Method::POST, "ann/x", Some(&id), &rpc("1", "ping"));
    let id = id.parse().expect("a value");
    request.headers_mut().append("mcp-session-id", id);
    assert_eq!(
        harness.registry.serve(request).await.response.status(),
        StatusCode::GONE
    );
}

#[tokio::test(start_paused = true)]
async fn only_initialize_is_served_without_a_session_id() {
    let harness = Harness::plain(Config::default());
    for (body, code, id) in [
        (rpc("3", "tools/list").as_str(), -32600, r#""id":3,"#),
        // A client that speaks 2026-07-28 falls back to `initialize` after this code.
        (&rpc("0", "server/discover"), -32601, r#""id":0,"#),
        (INITIALIZED, -32600, ""),
        (r#"{"jsonrpc":"2.0","method":"initialize"}"#, -32600, ""),
        (r#"{"jsonrpc":"2.0","id":null,"method":"initialize"}"#, -32600, ""),
        (r#"{"jsonrpc":"2.0","id":8,"result":{}}"#, -32600, ""),
        (r#"[{"jsonrpc":"2.0","id":8,"method":"initialize"}]"#, -32600, ""),
        ("{", -32700, ""),
        ("", -32700, ""),
    ] {
        let (status, answer) = harness.exchange("ann/x", None, body).await;
        assert_eq!(status, 400, "{body}");
        let start = format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"#);
        assert!(answer.starts_with(&start), "{body} got {answer}");
    }
    for method in [Method::GET, Method::DELETE] {
        let response = harness.send(method, "ann/x", None, "").await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(!body_text(response).await.contains("\"id\""));
    }
    assert_eq!(harness.spawner.spawn_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn unknown_http_method_is_405_with_the_allowed_ones() {
    let harness = Harness::plain(Config::default());
    let response = harness.send(Method::PUT, "ann/x", None, "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, POST, DELETE");
}

#[tokio::test(start_paused = true)]
async fn only_the_first_initialize_answer_carries_the_session_id() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    for method in ["ping", "stream", "initialize"] {
        let response = harness.post("ann/x", Some(&id), &rpc("2", method)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(session_id(&response), None, "{method}");
    }
    assert_eq!(
        harness.spawner.spawn_count(),
        1,
        "a second initialize reaches the backend of the session"
    );
}
