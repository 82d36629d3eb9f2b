//! What the tools do.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    content,
    peer::Peer,
    questions,
    wire::{Failure, Outcome},
};

/// Between two messages of a tool, so that they do not come in one piece.
const PAUSE: Duration = Duration::from_millis(50);

/// How long `test_reconnection` takes: longer than a bridge waits before it answers with a stream.
const RECONNECTION: Duration = Duration::from_millis(2_000);

/// How long `wait` waits if nobody cancels it.
const WAIT: Duration = Duration::from_secs(60);

/// Runs a tool. `params` are those of `tools/call`. A call that is cancelled is dropped between two steps.
pub(super) async fn call(peer: &Peer, params: &Value) -> Outcome {
    let arguments = &params["arguments"];
    let text = |key: &str| arguments[key].as_str().unwrap_or_default();
    let progress = Progress {
        peer,
        token: params["_meta"].get("progressToken"),
    };
    let name = params["name"].as_str().unwrap_or_default();
    let said = match name {
        "test_simple_text" => say("This is a simple text response for testing."),
        "test_image_content" => Ok(vec![content::image()]),
        "test_audio_content" => Ok(vec![content::audio()]),
        "test_embedded_resource" => Ok(vec![content::resource(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )]),
        "test_multiple_content_types" => Ok(vec![
            content::text("Multiple content types test:"),
            content::image(),
            content::resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ]),
        "test_tool_with_logging" => logging(peer).await,
        "test_tool_with_progress" => {
            for done in [0, 50, 100] {
                progress.report(done, 100).await;
                sleep(PAUSE).await;
            }
            say("Tool with progress executed successfully")
        }
        "test_error_handling" => Err("This tool intentionally returns an error for testing".to_owned()),
        "test_reconnection" => {
            sleep(RECONNECTION).await;
            say("Reconnection test completed successfully")
        }
        "test_sampling" => questions::sampling(peer, text("prompt")).await,
        "test_elicitation" => questions::elicitation(peer, text("message")).await,
        "test_elicitation_sep1034_defaults" => questions::elicitation_defaults(peer).await,
        "test_elicitation_sep1330_enums" => questions::elicitation_enums(peer).await,
        "json_schema_2020_12_tool" => say(format!("JSON Schema 2020-12 tool called with: {arguments}")),
        "roots" => questions::roots(peer).await,
        "update_resource" => update(peer, text("uri")).await,
        "change_tools" => {
            peer.notify("notifications/tools/list_changed", json!({})).await;
            say("told")
        }
        "wait" => {
            progress.report(0, 1).await;
            sleep(WAIT).await;
            say("nobody cancelled this call")
        }
        "cancelled" => say(peer.cancelled().join(" ")),
        _ => return Err(Failure::invalid(format!("no tool {name:?}"))),
    };
    Ok(match said {
        Ok(content) => json!({ "content": content }),
        Err(message) => json!({ "content": [content::text(message)], "isError": true }),
    })
}

/// Where a call's progress goes: nowhere, if the client gave no token for it.
struct Progress<'a> {
    peer: &'a Peer,
    token: Option<&'a Value>,
}

impl Progress<'_> {
    async fn report(&self, progress: u32, total: u32) {
        if let Some(token) = self.token {
            let params = json!({ "progressToken": token, "progress": progress, "total": total });
            self.peer.notify("notifications/progress", params).await;
        }
    }
}

async fn logging(peer: &Peer) -> Result<Vec<Value>, String> {
    for message in [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ] {
        peer.log("info", message).await;
        sleep(PAUSE).await;
    }
    say("Tool with logging executed successfully")
}

async fn update(peer: &Peer, uri: &str) -> Result<Vec<Value>, String> {
    if !peer.is_subscribed(uri) {
        return say("nobody has subscribed");
    }
    peer.notify("notifications/resources/updated", json!({ "uri": uri }))
        .await;
    say("told")
}

fn say(text: impl Into<String>) -> Result<Vec<Value>, String> {
    Ok(vec![content::text(text)])
}
