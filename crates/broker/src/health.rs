//! The self-descriptions of the broker: `/healthz`, `/readyz`, and the index page.
//!
//! `/healthz` reports that the process answers, and its build: it depends on nothing else, since
//! who restarts an unhealthy broker repairs no disk. `/readyz` reports whether requests can be
//! served. Before [`Broker::serve`](crate::Broker::serve) no connection is accepted.

use http::{Response, StatusCode};
use serde_json::json;

use crate::{app_state::AppState, ports::ResponseBody, response};

/// The response of `/healthz`.
pub(crate) fn health(state: &AppState) -> Response<ResponseBody> {
    let build = &state.config.build;
    let body = json!({ "status": "ok", "version": build.version, "revision": build.revision });
    response::json(StatusCode::OK, &body)
}

/// The response of `/readyz`: 200, or 503 while the broker drains or a readiness probe fails.
pub(crate) async fn readiness(state: &AppState) -> Response<ResponseBody> {
    if state.draining.is_cancelled() {
        return response::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    let failing = state.readiness.check().await;
    if failing.is_empty() {
        response::text(StatusCode::OK, "ready\n")
    } else {
        let failing: Vec<&str> = failing.into_iter().collect();
        let text = format!("not ready: {}\n", failing.join(", "));
        response::text(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

/// The index page, for users who open the URL in a browser.
pub(crate) fn index(state: &AppState) -> Response<ResponseBody> {
    let url = state.config.public_url.mcp();
    let text = format!(
        "This is forgejo-mcp-broker. It gives every user of a Forgejo instance their own MCP server.\n\n\
         Add this URL to your MCP client and sign in when it asks you to:\n\n    {url}\n"
    );
    response::text(StatusCode::OK, text)
}
