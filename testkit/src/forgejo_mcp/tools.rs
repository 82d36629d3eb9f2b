//! The three tools that work, and the answer to a call of any other.

use serde_json::{Value, json};

use super::{
    api::Api,
    catalog,
    protocol::{self, INTERNAL_ERROR, INVALID_PARAMS, RpcError},
};

pub(super) async fn call(api: &Api, name: &str, arguments: &Value) -> Result<Value, RpcError> {
    let result = match name {
        "get_my_user_info" => {
            let user = api.user().await;
            user.map_err(|error| format!("get user info err: {error}"))
        }
        "list_my_repos" => {
            let number = |key: &str, default| arguments[key].as_u64().unwrap_or(default);
            let (page, limit) = (number("page", 1), number("limit", 100));
            let list = api.get(&format!("/api/v1/user/repos?page={page}&limit={limit}")).await;
            list.map_err(|error| format!("list my repositories err: {error}"))
        }
        "get_forgejo_mcp_server_version" => Ok(json!({ "version": super::VERSION })),
        _ if catalog::is_listed(name) => Err(format!("{name} does nothing in this double")),
        _ => {
            let message = format!("tool '{name}' not found: tool not found");
            return Err(RpcError::new(INVALID_PARAMS, message));
        }
    };
    let result = result.map_err(|message| RpcError::new(INTERNAL_ERROR, message))?;
    Ok(protocol::text(result.to_string()))
}
