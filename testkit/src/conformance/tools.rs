//! The tools of the suite, and those of our own.

use std::{sync::Arc, time::Duration};

use rmcp::{
    RoleServer,
    handler::server::wrapper::Parameters,
    model::{
        CallToolResult, ClientCapabilities, ContentBlock, CreateMessageRequestParams, ElicitRequestParams, JsonObject,
        LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ResourceContents,
        ResourceUpdatedNotificationParam, SamplingMessage,
    },
    schemars::{self, JsonSchema},
    service::{RequestContext, ServiceError},
    tool, tool_router,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{ConformanceServer, PIXEL};

/// One silent sample, a WAV in base64.
const SILENCE: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA==";

/// The pause between two messages of a tool, so that they arrive apart.
const PAUSE: Duration = Duration::from_millis(50);

/// The duration of `test_reconnection`: longer than a bridge waits before it answers with a stream.
const RECONNECTION: Duration = Duration::from_millis(2_000);

/// The duration of `wait` without a cancellation.
const WAIT: Duration = Duration::from_secs(60);

type Context = RequestContext<RoleServer>;

#[derive(Deserialize, JsonSchema)]
struct Sampling {
    prompt: String,
}

#[derive(Deserialize, JsonSchema)]
struct Elicitation {
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Update {
    uri: String,
}

#[derive(Deserialize, JsonSchema)]
struct Wait {
    #[serde(rename = "tag")]
    _tag: String,
}

#[tool_router(vis = "pub(super)")]
impl ConformanceServer {
    /// Answers with text
    #[tool]
    async fn test_simple_text(&self) -> String {
        "This is a simple text response for testing.".to_owned()
    }

    /// Answers with an image
    #[tool]
    async fn test_image_content(&self) -> ContentBlock {
        ContentBlock::image(PIXEL, "image/png")
    }

    /// Answers with a sound
    #[tool]
    async fn test_audio_content(&self) -> ContentBlock {
        ContentBlock::audio(SILENCE, "audio/wav")
    }

    /// Answers with a resource
    #[tool]
    async fn test_embedded_resource(&self) -> ContentBlock {
        let contents = ResourceContents::text("This is an embedded resource content.", "test://embedded-resource");
        ContentBlock::resource(contents.with_mime_type("text/plain"))
    }

    /// Answers with text, an image and a resource
    #[tool]
    async fn test_multiple_content_types(&self) -> CallToolResult {
        let json = r#"{"test":"data","value":123}"#;
        let contents = ResourceContents::text(json, "test://mixed-content-resource");
        CallToolResult::success(vec![
            ContentBlock::text("Multiple content types test:"),
            ContentBlock::image(PIXEL, "image/png"),
            ContentBlock::resource(contents.with_mime_type("application/json")),
        ])
    }

    /// Logs three times while it runs
    #[tool]
    async fn test_tool_with_logging(&self, context: Context) -> String {
        for message in [
            "Tool execution started",
            "Tool processing data",
            "Tool execution completed",
        ] {
            if self.state().level as u8 <= LoggingLevel::Info as u8 {
                let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(message));
                let _ = context
                    .peer
                    .notify_logging_message(message.with_logger("conformance"))
                    .await;
            }
            sleep(PAUSE).await;
        }
        "Tool with logging executed successfully".to_owned()
    }

    /// Reports progress three times while it runs
    #[tool]
    async fn test_tool_with_progress(&self, context: Context) -> String {
        for progress in [0.0, 50.0, 100.0] {
            report_progress(&context, progress, 100.0).await;
            sleep(PAUSE).await;
        }
        "Tool with progress executed successfully".to_owned()
    }

    /// Fails
    #[tool]
    async fn test_error_handling(&self) -> Result<String, String> {
        Err("This tool intentionally returns an error for testing".to_owned())
    }

    /// Takes so long that its answer becomes a stream, and longer
    #[tool]
    async fn test_reconnection(&self) -> String {
        sleep(RECONNECTION).await;
        "Reconnection test completed successfully".to_owned()
    }

    /// Requests a message of the client's model
    #[tool]
    async fn test_sampling(
        &self,
        Parameters(Sampling { prompt }): Parameters<Sampling>,
        context: Context,
    ) -> Result<String, String> {
        require(&context, "sampling", |client| client.sampling.is_some())?;
        let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
        let result = context.peer.create_message(params).await.map_err(failed)?;
        let content = json!(result.message.content);
        Ok(format!(
            "LLM response: {}",
            content["text"].as_str().unwrap_or("no text")
        ))
    }

    /// Requests a name and an address of the client's user
    #[tool]
    async fn test_elicitation(
        &self,
        Parameters(Elicitation { message }): Parameters<Elicitation>,
        context: Context,
    ) -> Result<String, String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "username": { "type": "string", "description": "User's response" },
                "email": { "type": "string", "description": "User's email address" },
            },
            "required": ["username", "email"],
        });
        let answer = elicit(&context, &message, schema).await?;
        Ok(format!("User response: {answer}"))
    }

    /// Requests input of the client's user, with a default for every kind of field (SEP-1034)
    #[tool]
    async fn test_elicitation_sep1034_defaults(&self, context: Context) -> Result<String, String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "description": "User name", "default": "John Doe" },
                "age": { "type": "integer", "description": "User age", "default": 30 },
                "score": { "type": "number", "description": "User score", "default": 95.5 },
                "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
                "verified": { "type": "boolean", "description": "Verification status", "default": true },
            },
            "required": [],
        });
        let answer = elicit(&context, "Please review the defaults", schema).await?;
        Ok(format!("Elicitation completed: {answer}"))
    }

    /// Requests input of the client's user, with every kind of choice (SEP-1330)
    #[tool]
    async fn test_elicitation_sep1330_enums(&self, context: Context) -> Result<String, String> {
        let titled = |titles: [&str; 3]| -> Vec<Value> {
            let titles = titles.iter().zip(1..);
            let choices = titles.map(|(title, number)| json!({ "const": format!("value{number}"), "title": title }));
            choices.collect()
        };
        let options = ["option1", "option2", "option3"];
        let schema = json!({
            "type": "object",
            "properties": {
                "untitledSingle": { "type": "string", "enum": options },
                "titledSingle": {
                    "type": "string",
                    "oneOf": titled(["First Option", "Second Option", "Third Option"]),
                },
                "legacyEnum": {
                    "type": "string",
                    "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"],
                },
                "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
                "titledMulti": {
                    "type": "array",
                    "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
                },
            },
            "required": [],
        });
        let answer = elicit(&context, "Please choose", schema).await?;
        Ok(format!("Elicitation completed: {answer}"))
    }

    /// Has a schema with keywords of JSON Schema 2020-12
    #[tool(input_schema = schema_2020_12())]
    async fn json_schema_2020_12_tool(&self, Parameters(arguments): Parameters<JsonObject>) -> String {
        format!("JSON Schema 2020-12 tool called with: {}", Value::Object(arguments))
    }

    /// Requests the client's roots and answers with their URIs
    #[tool]
    async fn roots(&self, context: Context) -> Result<String, String> {
        require(&context, "roots", |client| client.roots.is_some())?;
        let result = context.peer.list_roots().await.map_err(failed)?;
        let uris: Vec<String> = result.roots.into_iter().map(|root| root.uri).collect();
        Ok(uris.join(" "))
    }

    /// Notifies a subscriber that a resource has changed
    #[tool]
    async fn update_resource(&self, Parameters(Update { uri }): Parameters<Update>, context: Context) -> String {
        if !self.state().subscriptions.contains(&uri) {
            return "no subscription".to_owned();
        }
        let update = ResourceUpdatedNotificationParam::new(uri);
        let _ = context.peer.notify_resource_updated(update).await;
        "sent".to_owned()
    }

    /// Notifies the client that the list of tools has changed
    #[tool]
    async fn change_tools(&self, context: Context) -> String {
        let _ = context.peer.notify_tool_list_changed().await;
        "sent".to_owned()
    }

    /// Reports progress once and then waits to be cancelled
    #[tool]
    async fn wait(&self, _: Parameters<Wait>, context: Context) -> String {
        report_progress(&context, 0.0, 1.0).await;
        sleep(WAIT).await;
        "the call was not cancelled".to_owned()
    }

    /// Answers with the tags of the calls that were cancelled
    #[tool]
    async fn cancelled(&self) -> String {
        self.state().cancelled.join(" ")
    }
}

/// Reports progress if the client sent a token for it.
async fn report_progress(context: &Context, progress: f64, total: f64) {
    if let Some(token) = context.meta.get_progress_token() {
        let progress = ProgressNotificationParam::new(token, progress).with_total(total);
        let _ = context.peer.notify_progress(progress).await;
    }
}

/// Requests input of the client's user; returns the action and the content.
async fn elicit(context: &Context, message: &str, schema: Value) -> Result<String, String> {
    require(context, "elicitation", |client| client.elicitation.is_some())?;
    let params = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema: serde_json::from_value(schema).expect("the fixtures are valid schemas"),
    };
    let result = context.peer.create_elicitation(params).await.map_err(failed)?;
    let (action, content) = (json!(result.action), json!(result.content));
    let action = action.as_str().unwrap_or("none");
    Ok(format!("action={action}, content={content}"))
}

/// Fails unless the client declared a capability.
fn require(context: &Context, name: &str, declares: fn(&ClientCapabilities) -> bool) -> Result<(), String> {
    let client = context.client_capabilities();
    let declared = client.is_some_and(|client| declares(&client));
    declared
        .then_some(())
        .ok_or(format!("the client does not offer {name}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the argument of `map_err`")]
fn failed(error: ServiceError) -> String {
    format!("the client answered with an error: {error}")
}

/// A schema with keywords that simple servers lose (SEP-1613, SEP-2106).
fn schema_2020_12() -> Arc<JsonObject> {
    let schema = json!({
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
    });
    Arc::new(schema.as_object().cloned().unwrap_or_default())
}
