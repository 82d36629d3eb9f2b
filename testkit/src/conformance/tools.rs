//! The tools of the suite, and those of our own.

use std::time::Duration;

use futures_util::future::try_join;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Failure, INTERNAL_ERROR, Outcome, PIXEL, call::Call, questions};

/// One silent sample, a WAV in base64.
const SILENCE: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA==";

/// The pause between two messages of a tool, so that they arrive apart.
const PAUSE: Duration = Duration::from_millis(50);

/// The duration of `test_reconnection`: longer than a bridge waits before it answers with a stream.
const RECONNECTION: Duration = Duration::from_millis(2_000);

/// The duration of `wait` without a cancellation.
const WAIT: Duration = Duration::from_secs(60);

/// The tool that asks its client before it becomes a task.
pub(super) const ASKS_FIRST: &str = "test_tool_with_task";

/// The names of the tools, what they do, and their required arguments, which are strings.
const TOOLS: &[(&str, &str, &[&str])] = &[
    ("test_simple_text", "Answers with text", &[]),
    ("test_image_content", "Answers with an image", &[]),
    ("test_audio_content", "Answers with a sound", &[]),
    ("test_embedded_resource", "Answers with a resource", &[]),
    ("test_multiple_content_types", "Answers with three contents", &[]),
    ("test_tool_with_logging", "Logs three times", &[]),
    ("test_logging_tool", "Logs three times", &[]),
    ("test_tool_with_progress", "Reports progress three times", &[]),
    ("test_error_handling", "Fails", &[]),
    ("test_reconnection", "Takes longer than a plain answer may", &[]),
    ("test_sampling", "Asks the client's model", &["prompt"]),
    ("test_elicitation", "Asks for a name and an address", &["message"]),
    ("test_elicitation_sep1034_defaults", "Asks with defaults", &[]),
    ("test_elicitation_sep1330_enums", "Asks with choices", &[]),
    ("json_schema_2020_12_tool", "Has a schema with newer keywords", &[]),
    ("test_custom_header", "Has an argument for a header", &["region"]),
    ("test_missing_capability", "Asks the model of every client", &[]),
    ("test_streaming_elicitation", "Asks for a name", &[]),
    ("test_trigger_tool_change", "Says that the tools have changed", &[]),
    ("test_trigger_prompt_change", "Says that the prompts have changed", &[]),
    ("test_input_required_result_elicitation", "Asks for a name", &[]),
    ("test_input_required_result_sampling", "Asks the client's model", &[]),
    ("test_input_required_result_list_roots", "Asks for the roots", &[]),
    ("test_input_required_result_request_state", "Asks for a yes", &[]),
    ("test_input_required_result_multiple_inputs", "Asks three at once", &[]),
    ("test_input_required_result_multi_round", "Asks twice", &[]),
    ("test_input_required_result_tampered_state", "Asks for a yes", &[]),
    ("test_input_required_result_capabilities", "Asks what it can", &[]),
    ("greet", "Greets", &["name"]),
    ("slow_compute", "Takes some seconds", &[]),
    ("failing_job", "Fails as a task", &[]),
    ("protocol_error_job", "Ends a task with an error", &[]),
    ("confirm_delete", "Asks as a task", &["filename"]),
    ("multi_input", "Asks twice at once as a task", &[]),
    (ASKS_FIRST, "Asks, and becomes a task", &[]),
    ("roots", "Asks for the roots and answers with their URIs", &[]),
    ("update_resource", "Says that a resource has changed", &["uri"]),
    ("wait", "Reports progress once and waits to be cancelled", &["tag"]),
    ("cancelled", "Answers with the tags of the cancelled calls", &[]),
];

pub(super) fn list() -> Vec<Value> {
    TOOLS.iter().map(tool).collect()
}

pub(super) async fn run(call: &Call) -> Outcome {
    let name = call.params["name"].as_str().unwrap_or_default();
    if let Some(answer) = questions::run(call, name).await {
        return answer.map(|answer| text(&answer));
    }
    let connection = &call.connection;
    let answer = match name {
        "test_simple_text" => "This is a simple text response for testing.".to_owned(),
        "test_image_content" => return Ok(contents(&json!([image()]))),
        "test_audio_content" => {
            let sound = json!({ "type": "audio", "data": SILENCE, "mimeType": "audio/wav" });
            return Ok(contents(&json!([sound])));
        }
        "test_embedded_resource" => {
            let text = "This is an embedded resource content.";
            let resource = resource("test://embedded-resource", "text/plain", text);
            return Ok(contents(&json!([resource])));
        }
        "test_multiple_content_types" => {
            let json = r#"{"test":"data","value":123}"#;
            let resource = resource("test://mixed-content-resource", "application/json", json);
            let text = json!({ "type": "text", "text": "Multiple content types test:" });
            return Ok(contents(&json!([text, image(), resource])));
        }
        "test_tool_with_logging" | "test_logging_tool" => {
            for message in [
                "Tool execution started",
                "Tool processing data",
                "Tool execution completed",
            ] {
                connection.log(message);
                sleep(PAUSE).await;
            }
            "Tool with logging executed successfully".to_owned()
        }
        "test_tool_with_progress" => {
            for progress in [0, 50, 100] {
                call.report_progress(progress, 100);
                sleep(PAUSE).await;
            }
            "Tool with progress executed successfully".to_owned()
        }
        "test_error_handling" => {
            let text = "This tool intentionally returns an error for testing";
            return Err(Failure::Tool(text.to_owned()));
        }
        "test_reconnection" => {
            sleep(RECONNECTION).await;
            "Reconnection test completed successfully".to_owned()
        }
        "json_schema_2020_12_tool" => {
            let arguments = &call.params["arguments"];
            format!("JSON Schema 2020-12 tool called with: {arguments}")
        }
        "test_custom_header" => call.argument("region")?.to_owned(),
        "test_trigger_tool_change" => {
            connection.notify("notifications/tools/list_changed", &json!({}));
            "sent".to_owned()
        }
        "test_trigger_prompt_change" => {
            connection.notify("notifications/prompts/list_changed", &json!({}));
            "sent".to_owned()
        }
        "greet" | ASKS_FIRST => format!("Hello, {}!", call.argument("name")?),
        "slow_compute" => {
            let seconds = call.params["arguments"]["seconds"].as_u64().unwrap_or(0);
            sleep(Duration::from_secs(seconds)).await;
            format!("Computed for {seconds} seconds")
        }
        "failing_job" => {
            sleep(PAUSE).await;
            return Err(Failure::Tool("the job failed".to_owned()));
        }
        "protocol_error_job" => {
            sleep(PAUSE).await;
            return Err(Failure::Error(INTERNAL_ERROR, "the job broke".to_owned()));
        }
        "confirm_delete" => {
            let file = call.argument("filename")?;
            let confirmed = questions::confirm(call, &format!("Delete {file}?")).await?;
            format!("deleted {file}: {confirmed}")
        }
        "multi_input" => {
            // Unlike the question of `confirm_delete`, these come after the answer.
            sleep(PAUSE).await;
            let (first, second) = (questions::confirm(call, "First?"), questions::confirm(call, "Second?"));
            let (first, second) = try_join(first, second).await?;
            format!("first: {first}, second: {second}")
        }
        "update_resource" => {
            let uri = call.argument("uri")?;
            if connection.state().subscriptions.contains(uri) {
                connection.notify("notifications/resources/updated", &json!({ "uri": uri }));
                "sent".to_owned()
            } else {
                "no subscription".to_owned()
            }
        }
        "wait" => {
            call.report_progress(0, 1);
            sleep(WAIT).await;
            "the call was not cancelled".to_owned()
        }
        "cancelled" => connection.state().cancelled.join(" "),
        _ => return Err(Failure::params(format!("no tool {name:?}"))),
    };
    Ok(text(&answer))
}

/// The result of a tool that failed.
pub(super) fn failed(message: &str) -> Value {
    let mut result = text(message);
    result["isError"] = json!(true);
    result
}

fn tool(&(name, description, arguments): &(&str, &str, &[&str])) -> Value {
    let mut tool = json!({
        "name": name,
        "description": description,
        "inputSchema": { "type": "object", "properties": {}, "required": arguments },
    });
    for argument in arguments {
        tool["inputSchema"]["properties"][argument] = json!({ "type": "string" });
    }
    match name {
        "json_schema_2020_12_tool" => tool["inputSchema"] = schema_2020_12(),
        "test_custom_header" => tool["inputSchema"]["properties"]["region"]["x-mcp-header"] = json!("Region"),
        "slow_compute" => tool["inputSchema"]["properties"]["seconds"] = json!({ "type": "integer" }),
        _ => {}
    }
    if let Some(support) = task_support(name) {
        tool["execution"] = json!({ "taskSupport": support });
    }
    tool
}

/// Whether a tool may or must be a task.
pub(super) fn task_support(tool: &str) -> Option<&'static str> {
    match tool {
        "slow_compute" | "protocol_error_job" | "confirm_delete" | "multi_input" => Some("optional"),
        "failing_job" | ASKS_FIRST => Some("required"),
        _ => None,
    }
}

fn text(text: &str) -> Value {
    contents(&json!([{ "type": "text", "text": text }]))
}

fn contents(contents: &Value) -> Value {
    json!({ "content": contents, "isError": false })
}

fn image() -> Value {
    json!({ "type": "image", "data": PIXEL, "mimeType": "image/png" })
}

fn resource(uri: &str, mime_type: &str, text: &str) -> Value {
    json!({ "type": "resource", "resource": { "uri": uri, "mimeType": mime_type, "text": text } })
}

/// A schema with keywords that simple servers lose (SEP-1613, SEP-2106).
fn schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}
