//! Messages that tests send, and checks of the responses.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Client, client::Answer};
use tokio::time::timeout;

use super::WAIT_LIMIT;

/// An `initialize` request.
pub(crate) fn initialize_request(id: impl Into<Value>) -> String {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    request("initialize", id, &params)
}

/// A `tools/list` request.
pub(crate) fn tools_list_request(id: impl Into<Value>) -> String {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "tools/list" }).to_string()
}

/// A `tools/call` request.
pub(crate) fn tool_call_request(id: impl Into<Value>, tool: &str, arguments: &Value) -> String {
    request("tools/call", id, &json!({ "name": tool, "arguments": arguments }))
}

fn request(method: &str, id: impl Into<Value>, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params }).to_string()
}

/// The form fields of a refresh at the broker's token endpoint.
pub(crate) fn refresh_form<'a>(refresh_token: &'a str, client_id: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("client_id", client_id),
    ]
}

/// Checks the status, and that the body is a JSON-RPC error with this id. Returns the error.
#[track_caller]
pub(crate) fn assert_error(answer: &Answer, status: u16, id: impl Into<Value>) -> Value {
    let body = answer.json();
    assert_eq!(answer.status.as_u16(), status, "{body}");
    assert_eq!(body["jsonrpc"], "2.0", "{body}");
    assert_eq!(body["id"], id.into(), "{body}");
    assert!(
        body["error"]["code"].is_i64() && body["error"]["message"].is_string(),
        "{body}"
    );
    body["error"].clone()
}

/// Opens and ends sessions until a response has this status.
pub(crate) async fn initialize_until(client: &Client, wanted: StatusCode) -> Answer {
    let attempts = async {
        loop {
            let answer = client.post(initialize_request("again")).await.unwrap();
            if answer.status == wanted {
                return answer;
            }
            if let Some(id) = answer.header("mcp-session-id") {
                client.set_session_id(Some(id));
                client.delete().await.unwrap();
            }
        }
    };
    timeout(WAIT_LIMIT, attempts)
        .await
        .unwrap_or_else(|_| panic!("no response has the status {wanted}"))
}

/// Two sessions send requests with equal ids at the same time: each gets the answer to its own
/// request. `echo` builds a call of `test_echo` from an id and a text.
pub(crate) async fn assert_equal_ids_stay_apart(alice: &Client, bob: &Client, echo: impl Fn(u64, &str) -> String) {
    for id in 0..20 {
        let (one, other) = tokio::join!(alice.post(echo(id, "for alice")), bob.post(echo(id, "for bob")));
        for (answer, own, foreign) in [(one, "for alice", "for bob"), (other, "for bob", "for alice")] {
            let text = answer.unwrap().response_to(&json!(id)).unwrap().to_string();
            assert!(text.contains(own) && !text.contains(foreign), "{text}");
        }
    }
}
