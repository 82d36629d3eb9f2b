//! The resources that the suite asks for.

use serde_json::{Value, json};

use super::{
    content::PNG,
    wire::{Failure, Outcome},
};

/// The code for a resource that is not there (MCP 2025-11-25, server/resources, "Error Handling").
const RESOURCE_NOT_FOUND: i64 = -32002;

/// The resource whose changes are watched.
const WATCHED: &str = "test://watched-resource";

pub(super) fn list() -> Value {
    let resource = |uri: &str, name: &str, mime_type: &str| json!({ "uri": uri, "name": name, "description": "A resource for tests", "mimeType": mime_type });
    json!({ "resources": [
        resource("test://static-text", "static-text", "text/plain"),
        resource("test://static-binary", "static-binary", "image/png"),
        resource(WATCHED, "watched-resource", "text/plain"),
    ] })
}

pub(super) fn templates() -> Value {
    json!({ "resourceTemplates": [{
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "description": "A resource template for tests",
        "mimeType": "application/json",
    }] })
}

pub(super) fn read(uri: &str) -> Outcome {
    let text = |mime_type: &str, text: &str| json!({ "uri": uri, "mimeType": mime_type, "text": text });
    let content = match uri {
        "test://static-text" => text("text/plain", "This is the content of the static text resource."),
        "test://static-binary" => json!({ "uri": uri, "mimeType": "image/png", "blob": PNG }),
        WATCHED => text("text/plain", "A resource that tests subscribe to."),
        _ => {
            let id = uri
                .strip_prefix("test://template/")
                .and_then(|rest| rest.strip_suffix("/data"));
            let Some(id) = id else {
                return Err(Failure {
                    code: RESOURCE_NOT_FOUND,
                    message: format!("no resource {uri:?}"),
                });
            };
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text("application/json", &data.to_string())
        }
    };
    Ok(json!({ "contents": [content] }))
}
