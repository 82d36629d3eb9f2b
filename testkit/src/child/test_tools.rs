//! Tools by which a test makes the double misbehave. They are there only if they were asked for at its start.
//!
//! | tool | does |
//! |---|---|
//! | `test_sleep {ms}` | answers after that time |
//! | `test_progress {steps}` | sends that many `notifications/progress` with the request's `progressToken`, then answers |
//! | `test_exit {code}` | ends the process at once, without an answer |
//! | `test_stderr {text}` | writes the text and a line feed to standard error |
//! | `test_echo {..}` | answers with its arguments |
//! | `test_announce` | says on its own account that its list of tools has changed, then answers |
//! | `test_environment` | answers with the names of its environment variables |
//! | `test_stamp {mark, ms, whose, announce}` | writes `took {mark} pid={pid}` to standard error; waits; with `announce` says the mark and its id in a `notifications/message`; answers with mark and id, and with `whose` with the login that its token belongs to |

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Options, catalogue,
    forgejo::Api,
    log::Log,
    protocol::{self, Failure, INTERNAL_ERROR, Outcome},
};

/// What a tool does to the world besides its answer.
pub(super) struct World<'a> {
    pub(super) options: &'a Options,
    pub(super) api: &'a Api,
    pub(super) log: &'a Log,
    /// Where lines go.
    pub(super) lines: &'a tokio::sync::mpsc::Sender<String>,
    /// Where messages go that belong to no request.
    pub(super) own: &'a tokio::sync::mpsc::Sender<String>,
    /// Where the code goes that ends the process.
    pub(super) exit: &'a tokio::sync::mpsc::Sender<u8>,
}

/// The tools as they are listed.
pub(super) fn listed() -> Vec<Value> {
    let number = || json!({ "type": "number" });
    vec![
        catalogue::tool(
            "test_sleep",
            "Answers after a while",
            &json!({ "ms": number() }),
            &["ms"],
        ),
        catalogue::tool(
            "test_progress",
            "Reports progress",
            &json!({ "steps": number() }),
            &["steps"],
        ),
        catalogue::tool("test_exit", "Ends the process", &json!({ "code": number() }), &["code"]),
        catalogue::tool(
            "test_stderr",
            "Writes to stderr",
            &json!({ "text": { "type": "string" } }),
            &["text"],
        ),
        catalogue::tool("test_echo", "Answers with its arguments", &json!({}), &[]),
        catalogue::tool(
            "test_announce",
            "Says that the list of tools has changed",
            &json!({}),
            &[],
        ),
        catalogue::tool(
            "test_environment",
            "Names of the environment variables",
            &json!({}),
            &[],
        ),
        catalogue::tool(
            "test_stamp",
            "Says who took the call",
            &json!({
                "mark": { "type": "string" },
                "ms": number(),
                "whose": { "type": "boolean" },
                "announce": { "type": "boolean" },
            }),
            &["mark"],
        ),
    ]
}

/// Runs a tool; `None` if there is none of that name. `params` are those of `tools/call`.
pub(super) async fn call(world: &World<'_>, name: &str, params: &Value) -> Option<Outcome> {
    let arguments = &params["arguments"];
    let number = |key: &str| arguments[key].as_u64().unwrap_or(0);
    let result = match name {
        "test_sleep" => {
            tokio::time::sleep(Duration::from_millis(number("ms"))).await;
            protocol::text("slept")
        }
        "test_progress" => {
            let steps = number("steps");
            let token = &params["_meta"]["progressToken"];
            for step in 1..=steps {
                if !token.is_null() {
                    let progress = json!({ "progressToken": token, "progress": step, "total": steps });
                    let _ = world
                        .lines
                        .send(protocol::notification("notifications/progress", &progress))
                        .await;
                }
            }
            protocol::text("done")
        }
        "test_exit" => {
            let _ = world.exit.send(u8::try_from(number("code")).unwrap_or(u8::MAX)).await;
            // The process ends under this call, so that it is never answered.
            std::future::pending().await
        }
        "test_stderr" => {
            world
                .log
                .raw(&format!("{}\n", arguments["text"].as_str().unwrap_or("")));
            protocol::text("written")
        }
        "test_announce" => {
            let changed = protocol::notification("notifications/tools/list_changed", &json!({}));
            let _ = world.own.send(changed).await;
            protocol::text("announced")
        }
        "test_echo" => protocol::text(arguments.to_string()),
        "test_environment" => protocol::text(json!(world.options.environment).to_string()),
        "test_stamp" => return Some(stamp(world, arguments).await),
        _ => return None,
    };
    Some(Ok(result))
}

/// Leaves a trace of the call on standard error before anything else, so that it can be told who took a call that was never
/// answered.
async fn stamp(world: &World<'_>, arguments: &Value) -> Outcome {
    let pid = std::process::id();
    let mark = arguments["mark"].as_str().unwrap_or_default();
    world.log.raw(&format!("took {mark} pid={pid}\n"));
    tokio::time::sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap_or(0))).await;
    let mut said = json!({ "mark": mark, "pid": pid });
    if arguments["announce"] == json!(true) {
        let params = json!({ "level": "info", "logger": "stamp", "data": said.clone() });
        // Fails only when nobody reads any more.
        let _ = world
            .lines
            .send(protocol::notification("notifications/message", &params))
            .await;
    }
    if arguments["whose"] == json!(true) {
        let user = world.api.user().await;
        said["login"] = user.map_err(|said| Failure::new(INTERNAL_ERROR, said))?["login"].clone();
    }
    Ok(protocol::text(said.to_string()))
}
