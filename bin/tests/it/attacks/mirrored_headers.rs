//! Requests of 2026-07-28 whose headers say something else than their body: an intermediary may act
//! on the headers, so no such request reaches a server.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use testkit::client::ModernClient;

use crate::harness::{Harness, conformance_mcp, login_of};

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";

const MISMATCH: (u16, i64) = (400, -32020);
const INVALID: (u16, i64) = (400, -32602);

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The headers of a message with other values of one: none, one or several.
fn with_values(client: &ModernClient, message: &Value, name: &'static str, values: &[&str]) -> HeaderMap {
    let mut headers = client.headers(message);
    let name = HeaderName::from_static(name);
    headers.remove(&name);
    for value in values {
        headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Sends a request; returns the status and the error code, if it is an error.
async fn outcome(client: &ModernClient, headers: HeaderMap, message: &Value) -> (u16, Option<i64>) {
    let reply = client.send_with(headers, message.clone()).await.unwrap();
    let code = reply.answer.json()["error"]["code"].as_i64();
    (reply.status(), code)
}

#[tokio::test]
async fn each_header_has_to_be_there_once_and_equal() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await.modern();
    let call = alice.tool_call("test_echo", &json!({}));
    // `=?base64?dGVzdF9lY2hv?=` is `test_echo`, and `=?base64?dG9vbHMvY2FsbA==?=` is `tools/call`.
    let mut served = 0;
    for (header, values, accepted) in [
        (VERSION, &["2026-07-28"][..], true),
        (VERSION, &[" 2026-07-28\t"], true),
        (VERSION, &["2025-11-25"], false),
        (VERSION, &["2027-01-01"], false),
        (VERSION, &[""], false),
        (VERSION, &["2026-07-28", "2026-07-28"], false),
        (VERSION, &["2026-07-28", "2025-11-25"], false),
        (VERSION, &["2025-11-25", "2026-07-28"], false),
        (VERSION, &["2026-07-28, 2026-07-28"], false),
        (VERSION, &["=?base64?MjAyNi0wNy0yOA==?="], false),
        (VERSION, &[], false),
        (METHOD, &["tools/call"], true),
        (METHOD, &["tools/list"], false),
        (METHOD, &["Tools/Call"], false),
        (METHOD, &["tools/call", "tools/call"], false),
        (METHOD, &["tools/call", "tools/list"], false),
        (METHOD, &["=?base64?dG9vbHMvY2FsbA==?="], false),
        (METHOD, &["tools/call\u{e9}"], false),
        (METHOD, &[""], false),
        (METHOD, &[], false),
        (NAME, &["test_echo"], true),
        (NAME, &["\ttest_echo "], true),
        (NAME, &["=?base64?dGVzdF9lY2hv?="], true),
        (NAME, &["=?BASE64?dGVzdF9lY2hv?="], false),
        (NAME, &["=?base64?dGVzdF9lY2hv"], false),
        (NAME, &["=?base64?dGVzdF9lY2h?="], false),
        (NAME, &["=?base64?dGVzdF9lY2hv=?="], false),
        (NAME, &["=?base64?dGVzdF9yZWFk?="], false),
        (NAME, &["=?base64?/w==?="], false),
        (NAME, &["test_write"], false),
        (NAME, &["TEST_ECHO"], false),
        (NAME, &["test_echo", "test_echo"], false),
        (NAME, &["test_write", "test_echo"], false),
        (NAME, &["test_echo", "=?base64?dGVzdF9lY2hv?="], false),
        (NAME, &["\u{e9}"], false),
        (NAME, &[""], false),
        (NAME, &[], false),
    ] {
        let headers = with_values(&alice, &call, header, values);
        let got = outcome(&alice, headers, &call).await;
        let wanted = if accepted {
            (200, None)
        } else {
            (MISMATCH.0, Some(MISMATCH.1))
        };
        assert_eq!(got, wanted, "{header}: {values:?}");
        served += usize::from(accepted);
    }
    // Every combination of a header that is missing, another one, or right.
    for combination in 1..27_usize {
        let mut headers = alice.headers(&call);
        for (place, (name, other)) in [(VERSION, "2027-01-01"), (METHOD, "tools/list"), (NAME, "test_write")]
            .into_iter()
            .enumerate()
        {
            match combination / 3_usize.pow(u32::try_from(place).unwrap()) % 3 {
                0 => {}
                1 => _ = headers.remove(name),
                _ => _ = headers.insert(name, HeaderValue::from_static(other)),
            }
        }
        let got = outcome(&alice, headers, &call).await;
        assert_eq!(got, (MISMATCH.0, Some(MISMATCH.1)), "combination {combination}");
    }
    assert_eq!(harness.broker.log().count("tool call tool="), served);
}

#[tokio::test]
async fn bodies_that_say_less_or_more_than_their_headers_are_rejected() {
    let harness = Harness::new(&[]).await;
    let keyed = harness.in_session("alice").await;
    let alice = keyed.modern();
    let call = alice.tool_call("test_echo", &json!({}));
    let headers = alice.headers(&call);
    let text = call.to_string();
    let id = &call["id"];
    let meta = call["params"]["_meta"].to_string();
    let body = |params: String| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
    for (what, wanted, body) in [
        ("no params", INVALID, text.replace("\"params\"", "\"other\"")),
        ("no _meta", INVALID, body(r#"{"name":"test_echo"}"#.to_owned())),
        ("no version", INVALID, text.replace(META_VERSION, "x/y")),
        (
            "no capabilities",
            INVALID,
            text.replace("/clientCapabilities", "/other"),
        ),
        ("another version", MISMATCH, text.replace("2026-07-28", "2027-01-01")),
        ("no name", INVALID, body(format!(r#"{{"_meta":{meta}}}"#))),
        (
            "a name that is no text",
            INVALID,
            body(format!(r#"{{"name":7,"_meta":{meta}}}"#)),
        ),
        (
            "another name",
            MISMATCH,
            body(format!(r#"{{"name":"test_write","_meta":{meta}}}"#)),
        ),
        (
            "two names",
            INVALID,
            body(format!(r#"{{"name":"test_echo","name":"test_write","_meta":{meta}}}"#)),
        ),
        (
            "two names in two spellings",
            INVALID,
            body(format!(
                r#"{{"name":"test_echo","n\u0061me":"test_write","_meta":{meta}}}"#
            )),
        ),
        (
            "two _meta",
            INVALID,
            body(format!(r#"{{"name":"test_echo","_meta":{meta},"_meta":{{}}}}"#)),
        ),
        ("another method", MISMATCH, text.replace("tools/call", "tools/list")),
    ] {
        let answer = alice
            .client()
            .raw(http::Method::POST, headers.clone(), body)
            .await
            .unwrap();
        let code = answer.json()["error"]["code"].as_i64();
        assert_eq!(
            (answer.status.as_u16(), code),
            (wanted.0, Some(wanted.1)),
            "{what}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["id"], *id, "{what}");
    }
    // A request of 2026-07-28 without the header that says so, even in a session of 2025-11-25.
    for version in [&["2025-11-25"][..], &[]] {
        let mut headers = with_values(&alice, &call, VERSION, version);
        headers.insert("mcp-session-id", keyed.session_id().unwrap().parse().unwrap());
        let got = outcome(&alice, headers, &call).await;
        assert_eq!(got, (MISMATCH.0, Some(MISMATCH.1)), "in a session, {version:?}");
    }
    assert_eq!(harness.broker.log().count("tool call tool="), 0);
    assert_eq!(login_of(&keyed).await, "alice");
}

#[tokio::test]
async fn mirrored_arguments_are_compared() {
    let harness = Harness::with_child(conformance_mcp(), &[]).await;
    let alice = harness.signed_in("alice").await.modern();
    for (argument, values, accepted) in [
        (json!("eu"), &["eu"][..], true),
        (json!("eu"), &["=?base64?ZXU=?="], true),
        (json!("\u{e9}"), &["=?base64?w6k=?="], true),
        (json!("eu"), &[], false),
        (json!("eu"), &["us"], false),
        (json!("eu"), &["eu", "eu"], false),
        (json!("eu"), &["EU"], false),
        (json!("eu"), &["=?base64?ZXU?="], false),
        (Value::Null, &["eu"], false),
    ] {
        let call = alice.tool_call("test_custom_header", &json!({ "region": argument }));
        let headers = with_values(&alice, &call, "mcp-param-region", values);
        let got = outcome(&alice, headers, &call).await;
        let wanted = if accepted {
            (200, None)
        } else {
            (MISMATCH.0, Some(MISMATCH.1))
        };
        assert_eq!(got, wanted, "{argument} {values:?}");
    }
}
