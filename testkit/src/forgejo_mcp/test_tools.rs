//! Tools that make the double misbehave, present only if requested at its start.
//!
//! | tool | effect |
//! |---|---|
//! | `test_sleep {ms}` | answers after that time |
//! | `test_fail {ms}` | answers with a JSON-RPC error after that time |
//! | `test_progress {steps, ms}` | sends that many `notifications/progress` with the request's `progressToken`, each after that time, then answers |
//! | `test_exit {code}` | ends the process at once, without an answer |
//! | `test_stderr {text}` | writes the text and a line feed to standard error |
//! | `test_echo {..}` | answers with its arguments |
//! | `test_announce` | sends `notifications/tools/list_changed` outside its request, then answers |
//! | `test_update {uri}` | sends `notifications/resources/updated` if the client has subscribed; answers whether it has, and with its process id |
//! | `test_received` | answers with all messages that the process has got, but for calls of tools |
//! | `test_read`, `test_repeat`, `test_write` | answers with its process id; the first is listed as read-only, the second as idempotent |
//! | `test_environment` | answers with the names of its environment variables |
//! | `test_stamp {mark, ms, whose, announce, ask}` | writes `took {mark} pid={pid}` to standard error; waits; with `ask` asks the client with the mark as question and an id that counts from 1 in each process; writes `gave {mark} pid={pid}`; with `announce` sends the mark and its process id in a `notifications/message`; answers with both, with `whose` with the login that its token belongs to, and with `ask` with the nonce of the client's answer |

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    CallContext, catalog, log, misbehavior, modern,
    protocol::{self, INTERNAL_ERROR, RpcError},
};

pub(super) fn listed() -> Vec<Value> {
    let [number, text, flag] = ["number", "string", "boolean"].map(|kind| json!({ "type": kind }));
    let none = json!({});
    let stamp = json!({ "mark": text, "ms": number, "whose": flag, "announce": flag, "ask": flag });
    [
        ("test_sleep", "Answers after a while", json!({ "ms": number }), "ms"),
        ("test_fail", "Fails after a while", json!({ "ms": number }), "ms"),
        (
            "test_progress",
            "Reports progress",
            json!({ "steps": number, "ms": number }),
            "steps",
        ),
        ("test_exit", "Ends the process", json!({ "code": number }), "code"),
        ("test_stderr", "Writes to stderr", json!({ "text": text }), "text"),
        ("test_echo", "Answers with its arguments", none.clone(), ""),
        (
            "test_announce",
            "Announces a change of the list of tools",
            none.clone(),
            "",
        ),
        (
            "test_environment",
            "Names of the environment variables",
            none.clone(),
            "",
        ),
        ("test_update", "Updates a resource", json!({ "uri": text }), "uri"),
        ("test_received", "Messages that it has got", none.clone(), ""),
        ("test_read", "Changes nothing", none.clone(), ""),
        ("test_repeat", "Changes something once", none.clone(), ""),
        ("test_write", "Changes something", none, ""),
        ("test_stamp", "Identifies the process of the call", stamp, "mark"),
    ]
    .map(|(name, description, properties, required)| {
        let required: Vec<&str> = required.split_whitespace().collect();
        let mut tool = catalog::tool(name, description, &properties, &required);
        match name {
            "test_read" => tool["annotations"] = json!({ "readOnlyHint": true }),
            "test_repeat" => tool["annotations"] = json!({ "idempotentHint": true, "readOnlyHint": false }),
            _ => {}
        }
        tool
    })
    .to_vec()
}

/// Runs a tool; `None` if there is none of that name. `params` are those of `tools/call`.
pub(super) async fn call(context: &CallContext, name: &str, params: &Value) -> Option<Result<Value, RpcError>> {
    let arguments = &params["arguments"];
    let number = |key: &str| arguments[key].as_u64().unwrap_or(0);
    let answer = match name {
        "test_sleep" => {
            sleep(Duration::from_millis(number("ms"))).await;
            "slept".to_owned()
        }
        "test_fail" => {
            sleep(Duration::from_millis(number("ms"))).await;
            return Some(Err(RpcError::new(INTERNAL_ERROR, "failed as told")));
        }
        "test_progress" => {
            let (token, steps) = (&params["_meta"]["progressToken"], number("steps"));
            for step in (1..=steps).filter(|_| !token.is_null()) {
                sleep(Duration::from_millis(number("ms"))).await;
                let progress = json!({ "progressToken": token, "progress": step, "total": steps });
                let progress = protocol::notification("notifications/progress", &progress);
                context.send(progress).await;
            }
            "done".to_owned()
        }
        "test_exit" => std::process::exit(i32::try_from(number("code")).unwrap_or(1)),
        "test_stderr" => {
            log::raw(&format!("{}\n", arguments["text"].as_str().unwrap_or("")));
            "written".to_owned()
        }
        "test_announce" => {
            context.announce("notifications/tools/list_changed", &json!({})).await;
            "announced".to_owned()
        }
        "test_update" => {
            let uri = arguments["uri"].as_str().unwrap_or_default();
            let subscribed = context.is_subscribed(uri);
            if subscribed {
                context
                    .announce("notifications/resources/updated", &json!({ "uri": uri }))
                    .await;
            }
            json!({ "subscribed": subscribed, "pid": std::process::id() }).to_string()
        }
        "test_read" | "test_repeat" | "test_write" => json!({ "pid": std::process::id() }).to_string(),
        "test_received" => json!(context.inbox.record()).to_string(),
        "test_echo" => arguments.to_string(),
        "test_environment" => {
            let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
            let mut names: Vec<String> = variables.collect();
            names.sort();
            json!(names).to_string()
        }
        "test_stamp" => return Some(stamp(context, params).await),
        _ => return None,
    };
    Some(Ok(protocol::text(answer)))
}

/// Writes a trace of the call to standard error before anything else, so that a test can see which
/// process took a call that was never answered.
async fn stamp(context: &CallContext, params: &Value) -> Result<Value, RpcError> {
    let arguments = &params["arguments"];
    let pid = std::process::id();
    let mark = arguments["mark"].as_str().unwrap_or_default();
    log::raw(&format!("took {mark} pid={pid}\n"));
    sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap_or(0))).await;
    let mut answer = json!({ "mark": mark, "pid": pid });
    if arguments["ask"] == json!(true) {
        let question = json!({ "id": context.inbox.next_id(), "question": mark });
        let answers = misbehavior::ask(context, &question).await;
        answer["nonce"] = answers.first().unwrap_or(&Value::Null)["result"]["content"]["nonce"].clone();
    }
    log::raw(&format!("gave {mark} pid={pid}\n"));
    let wants_log = context.listens.is_none() || modern::wants_log(params, "info");
    if arguments["announce"] == json!(true) && wants_log {
        let params = json!({ "level": "info", "logger": "stamp", "data": answer });
        let message = protocol::notification("notifications/message", &params);
        context.send(message).await;
    }
    if arguments["whose"] == json!(true) {
        let user = context.api.user().await;
        let user = user.map_err(|message| RpcError::new(INTERNAL_ERROR, message))?;
        answer["login"] = user["login"].clone();
    }
    Ok(protocol::text(answer.to_string()))
}
