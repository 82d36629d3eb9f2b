//! The resources of the suite.

use rmcp::{
    ErrorData,
    model::{
        ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource, ResourceContents,
        ResourceTemplate,
    },
};
use serde_json::json;

use super::PIXEL;

const WATCHED: &str = "test://watched-resource";

pub(super) fn list() -> ListResourcesResult {
    let resource = |uri: &str, name: &str, mime_type: &str| {
        let resource = Resource::new(uri, name).with_description("A resource for tests");
        resource.with_mime_type(mime_type)
    };
    ListResourcesResult::with_all_items(vec![
        resource("test://static-text", "static-text", "text/plain"),
        resource("test://static-binary", "static-binary", "image/png"),
        resource(WATCHED, "watched-resource", "text/plain"),
    ])
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    let template = ResourceTemplate::new("test://template/{id}/data", "template")
        .with_description("A resource template for tests")
        .with_mime_type("application/json");
    ListResourceTemplatesResult::with_all_items(vec![template])
}

pub(super) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let text = |text: &str, mime_type: &str| ResourceContents::text(text, uri).with_mime_type(mime_type);
    let contents = match uri {
        "test://static-text" => text("This is the content of the static text resource.", "text/plain"),
        "test://static-binary" => ResourceContents::blob(PIXEL, uri).with_mime_type("image/png"),
        WATCHED => text("A resource that tests subscribe to.", "text/plain"),
        _ => {
            let id = uri.strip_prefix("test://template/");
            let Some(id) = id.and_then(|rest| rest.strip_suffix("/data")) else {
                return Err(ErrorData::resource_not_found(format!("no resource {uri:?}"), None));
            };
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text(&data.to_string(), "application/json")
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}
