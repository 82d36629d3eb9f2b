//! The resources of the suite.

use serde_json::{Value, json};

use super::{Failure, Outcome, PIXEL};

const WATCHED: &str = "test://watched-resource";

/// The error of 2025-11-25; 2026-07-28 has `-32602` instead.
const RESOURCE_NOT_FOUND: i64 = -32002;

pub(super) fn list() -> Value {
    let resource = |uri: &str, name: &str, mime_type: &str| {
        let description = "A resource for tests";
        json!({ "uri": uri, "name": name, "description": description, "mimeType": mime_type })
    };
    json!([
        resource("test://static-text", "static-text", "text/plain"),
        resource("test://static-binary", "static-binary", "image/png"),
        resource(WATCHED, "watched-resource", "text/plain"),
    ])
}

pub(super) fn templates() -> Value {
    json!([{
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "description": "A resource template for tests",
        "mimeType": "application/json",
    }])
}

pub(super) fn read(uri: &str) -> Outcome {
    let text = |text: &str, mime_type: &str| json!({ "uri": uri, "mimeType": mime_type, "text": text });
    let contents = match uri {
        "test://static-text" => text("This is the content of the static text resource.", "text/plain"),
        "test://static-binary" => json!({ "uri": uri, "mimeType": "image/png", "blob": PIXEL }),
        WATCHED => text("A resource that tests subscribe to.", "text/plain"),
        _ => {
            let id = uri.strip_prefix("test://template/");
            let Some(id) = id.and_then(|rest| rest.strip_suffix("/data")) else {
                return Err(Failure::Error(RESOURCE_NOT_FOUND, format!("no resource {uri:?}")));
            };
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text(&data.to_string(), "application/json")
        }
    };
    Ok(json!({ "contents": [contents] }))
}
