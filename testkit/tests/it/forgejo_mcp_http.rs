//! The double of `forgejo-mcp` over HTTP: tokens, sessions and streams.

use std::{path::Path, time::Duration};

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use testkit::{
    FakeForgejo,
    broker::{SharedMcp, free_port},
    forgejo::Options,
};

const SESSION_ID: &str = "mcp-session-id";

struct Double {
    http: reqwest::Client,
    server: SharedMcp,
    forgejo: FakeForgejo,
}

impl Double {
    async fn start(strict: bool) -> Self {
        let forgejo = FakeForgejo::start(Options::default()).await.unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_fake-forgejo-mcp"));
        let server = SharedMcp::start(program.to_owned(), &forgejo, free_port(), strict, "legacy").await;
        Self {
            http: testkit::http_client::client(Duration::from_secs(20)),
            server: server.unwrap(),
            forgejo,
        }
    }

    fn post(&self, session: Option<&str>, token: &str, message: &Value) -> RequestBuilder {
        let request = self.http.post(self.server.url()).header("authorization", token);
        let request = request.body(message.to_string());
        let sessions = session.into_iter();
        sessions.fold(request, |request, id| request.header(SESSION_ID, id))
    }

    async fn open(&self, token: &str) -> String {
        let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
        let answer = self.post(None, token, &initialize).send().await.unwrap();
        answer.headers()[SESSION_ID].to_str().unwrap().to_owned()
    }
}

fn call(tool: &str, arguments: &Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": 1 } });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
}

#[tokio::test]
async fn each_request_uses_its_own_token_in_either_scheme() {
    let double = Double::start(false).await;
    let session = double.open("").await;
    for (login, scheme) in [("alice", "token"), ("bob", "Bearer")] {
        let token = double.forgejo.access_token(login, "read:user");
        let token = format!("{scheme} {token}");
        let request = double.post(Some(&session), &token, &call("get_my_user_info", &json!({})));
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["result"].to_string().contains(login), "{answer}");
    }
}

#[tokio::test]
async fn any_well_formed_session_id_is_valid_unless_the_double_is_strict() {
    let made_up = "mcp-session-01234567-89ab-cdef-0123-456789abcdef";
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for strict in [false, true] {
        let double = Double::start(strict).await;
        let status = async |session: Option<&str>, token: &str| {
            let answer = double.post(session, token, &ping).send().await;
            answer.unwrap().status()
        };
        let token = format!("Bearer {}", double.forgejo.access_token("alice", "read:user"));
        let expected = if strict { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(status(Some(made_up), &token).await, expected, "strict: {strict}");
        for bad in [None, Some("mcp-session-1"), Some("1")] {
            assert_eq!(status(bad, &token).await, StatusCode::NOT_FOUND, "{bad:?}");
        }
        let session = double.open(&token).await;
        assert_eq!(status(Some(&session), &token).await, StatusCode::OK);
        let expected = if strict {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        let bad_token = status(Some(&session), "Bearer unknown").await;
        assert_eq!(bad_token, expected, "strict: {strict}");
    }
}

#[tokio::test]
async fn answer_after_messages_is_a_stream_and_a_get_receives_the_rest() {
    let double = Double::start(false).await;
    let session = double.open("").await;
    let progress = call("test_progress", &json!({ "steps": 2 }));
    let answer = double.post(Some(&session), "", &progress).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    assert_eq!(text.matches("notifications/progress").count(), 2);
    assert!(text.ends_with("\n\n") && text.contains("done"), "{text}");

    let listening = double.http.get(double.server.url()).header(SESSION_ID, &session);
    let mut listening = listening.send().await.unwrap();
    let announce = double.post(Some(&session), "", &call("test_announce", &json!({})));
    announce.send().await.unwrap();
    let received = listening.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&received).contains("tools/list_changed"));
}
