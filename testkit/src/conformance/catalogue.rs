//! The tools as they are listed.

use serde_json::{Value, json};

/// The result of `tools/list`.
pub(super) fn tools() -> Value {
    let text = json!({ "type": "string" });
    let plain = |name: &str, description: &str| tool(name, description, &json!({}), &[]);
    json!({ "tools": [
        plain("test_simple_text", "Answers with text"),
        plain("test_image_content", "Answers with an image"),
        plain("test_audio_content", "Answers with a sound"),
        plain("test_embedded_resource", "Answers with a resource"),
        plain("test_multiple_content_types", "Answers with text, an image and a resource"),
        plain("test_tool_with_logging", "Logs three times while it runs"),
        plain("test_tool_with_progress", "Reports progress three times while it runs"),
        plain("test_error_handling", "Fails"),
        plain("test_reconnection", "Takes so long that its answer becomes a stream, and longer"),
        tool("test_sampling", "Asks the client's model", &json!({ "prompt": text }), &["prompt"]),
        tool("test_elicitation", "Asks the client's user", &json!({ "message": text }), &["message"]),
        plain("test_elicitation_sep1034_defaults", "Asks the client's user, with defaults"),
        plain("test_elicitation_sep1330_enums", "Asks the client's user, with choices"),
        json!({
            "name": "json_schema_2020_12_tool",
            "description": "Has a schema with words of JSON Schema 2020-12",
            "inputSchema": schema_2020_12(),
        }),
        plain("roots", "Asks for the client's roots and answers with their URIs"),
        tool("update_resource", "Tells a subscriber that a resource has changed", &json!({ "uri": text }), &["uri"]),
        plain("change_tools", "Says that the list of tools has changed"),
        tool("wait", "Reports progress once and then waits to be cancelled", &json!({ "tag": text }), &["tag"]),
        plain("cancelled", "Answers with the tags of the calls that were cancelled"),
    ] })
}

fn tool(name: &str, description: &str, properties: &Value, required: &[&str]) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": { "type": "object", "properties": properties, "required": required },
    })
}

/// A schema whose words get lost in servers that know only the simple ones (SEP-1613, SEP-2106).
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
