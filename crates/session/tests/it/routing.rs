//! Which session an exchange reaches, and what is said when it reaches none.

use http::{Method, StatusCode};
use session::{Config, UnknownStatus};

use crate::fakes::{Outcome, ScriptedSpawner, lock, open, post, registry, request, rpc, said, session_id, text};

#[tokio::test(start_paused = true)]
async fn the_id_leads_to_the_session_in_any_case_of_the_header() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let (a, b) = (open(&reg, "ann/x").await, open(&reg, "bob/x").await);
    for (who, id, asked) in [("ann/x", &a, "10"), ("bob/x", &b, "20"), ("ann/x", &a, "11")] {
        let (status, body) = said(&reg, who, Some(id), &rpc(asked, "ping")).await;
        assert_eq!(status, 200);
        assert!(body.contains(&format!(r#""id":{asked}"#)), "{body}");
    }
    let backends = lock(&spawner.backends).clone();
    let asked = |i: usize| lock(&backends[i].seen).len();
    assert_eq!((asked(0), asked(1)), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_body_with_a_session_goes_through_unread() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    let odd = "[ {\"what\": 1} ,2]\n";
    assert_eq!(said(&reg, "ann/x", Some(&id), odd).await.0, 200);
    assert_eq!(lock(&spawner.last().seen).last().expect("a request").2, odd);
}

#[tokio::test(start_paused = true)]
async fn another_grant_is_forbidden_and_the_same_grant_anew_is_not() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    for other in ["bob/x", "ann/y"] {
        let (status, body) = said(&reg, other, Some(&id), &rpc("5", "ping")).await;
        assert_eq!(status, 403);
        assert!(body.contains(r#""id":5"#), "{body}");
        let deleted = reg.serve(request(Method::DELETE, other, Some(&id), "")).await;
        assert_eq!(deleted.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(said(&reg, "ann/x", Some(&id), &rpc("5", "ping")).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_gone_or_not_found_as_set() {
    for (setting, status) in [(UnknownStatus::Gone, 410), (UnknownStatus::NotFound, 404)] {
        let spawner = ScriptedSpawner::immediate(Outcome::Good);
        let reg = registry(
            &spawner,
            Config {
                unknown_status: setting,
                ..Config::default()
            },
        );
        open(&reg, "ann/x").await;
        for unknown in [&"0".repeat(48), &"Z".repeat(48), "short", &"f".repeat(5000)] {
            for rpc_id in ["0", r#""s""#] {
                let (got, body) = said(&reg, "ann/x", Some(unknown), &rpc(rpc_id, "ping")).await;
                assert_eq!(got, status);
                assert!(body.contains(&format!(r#""id":{rpc_id},"error""#)), "{body}");
            }
        }
        assert_eq!(spawner.orders(), 1, "initialize on an unknown id spawns nothing either");
    }
}

#[tokio::test(start_paused = true)]
async fn two_session_ids_name_no_session() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    let mut asked = request(Method::POST, "ann/x", Some(&id), &rpc("1", "ping"));
    asked
        .headers_mut()
        .append("mcp-session-id", id.parse().expect("a value"));
    assert_eq!(reg.serve(asked).await.status(), StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_handshake_needs_a_session() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    for (body, code, id) in [
        (rpc("3", "tools/list"), -32600, r#""id":3,"#),
        (rpc("0", "server/discover"), -32601, r#""id":0,"#),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into(),
            -32600,
            "",
        ),
        (r#"{"jsonrpc":"2.0","method":"initialize"}"#.into(), -32600, ""),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"initialize"}"#.into(),
            -32600,
            "",
        ),
        (r#"{"jsonrpc":"2.0","id":8,"result":{}}"#.into(), -32600, ""),
        (r#"[{"jsonrpc":"2.0","id":8,"method":"initialize"}]"#.into(), -32600, ""),
        ("{".into(), -32700, ""),
        (String::new(), -32700, ""),
    ] {
        let (status, said) = said(&reg, "ann/x", None, &body).await;
        assert_eq!(status, 400, "{body}");
        let start = format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"#);
        assert!(said.starts_with(&start), "{body} got {said}");
    }
    for method in [Method::GET, Method::DELETE] {
        let response = reg.serve(request(method, "ann/x", None, "")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(!text(response).await.contains("\"id\""));
    }
    assert_eq!(spawner.orders(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_refused_with_those_that_work() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let response = reg.serve(request(Method::PUT, "ann/x", None, "")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, POST, DELETE");
}

#[tokio::test(start_paused = true)]
async fn the_id_is_on_the_initialize_answer_alone() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    for method in ["ping", "stream", "initialize"] {
        let response = post(&reg, "ann/x", Some(&id), &rpc("2", method)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(session_id(&response), None, "{method}");
    }
    assert_eq!(
        spawner.orders(),
        1,
        "a second initialize goes to the session's own backend"
    );
}
