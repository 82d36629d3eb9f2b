//! The tools that do real work, and what becomes of a call to any other.

use serde_json::{Value, json};

use super::{
    catalogue,
    forgejo::Api,
    protocol::{self, Failure, INTERNAL_ERROR, INVALID_PARAMS, Outcome},
};

/// Runs a tool of `forgejo-mcp`. A failure carries Forgejo's message as it is.
pub(super) async fn call(api: &Api, name: &str, arguments: &Value) -> Outcome {
    let result = match name {
        "get_my_user_info" => api.user().await.map_err(|said| format!("get user info err: {said}")),
        "list_my_repos" => {
            let number = |key: &str, default| arguments[key].as_u64().unwrap_or(default);
            let list = api.repositories(number("page", 1), number("limit", 100)).await;
            list.map_err(|said| format!("list my repositories err: {said}"))
        }
        "get_forgejo_mcp_server_version" => Ok(json!({ "version": super::VERSION })),
        _ if is_listed(name) => Err(format!("{name} does nothing in this double")),
        _ => {
            return Err(Failure::new(
                INVALID_PARAMS,
                format!("tool '{name}' not found: tool not found"),
            ));
        }
    };
    match result {
        Ok(value) => Ok(protocol::text(value.to_string())),
        Err(message) => Err(Failure::new(INTERNAL_ERROR, message)),
    }
}

fn is_listed(name: &str) -> bool {
    let listed = catalogue::tools(&[]);
    listed["tools"]
        .as_array()
        .is_some_and(|tools| tools.iter().any(|tool| tool["name"] == name))
}
