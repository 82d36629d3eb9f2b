//! The self-descriptions of the broker: `/healthz`, `/readyz`, and the index page.
//!
//! `/healthz` reports the result of each probe and the build; `/readyz` whether requests can be
//! served. Before [`Broker::serve`](crate::Broker::serve) no connection is accepted.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::{app_state::AppState, ports::ResponseBody, probe, response};

/// The response of `/healthz`: 200, or 503 if a probe failed.
pub(crate) async fn health(state: &AppState) -> Response<ResponseBody> {
    let mut probes: Map<String, Value> = Map::new();
    let mut healthy = true;
    for (name, result) in probe::run(&state.probes).await {
        let word = match result {
            Ok(()) => "ok",
            Err(error) => {
                tracing::error!(probe = name, error, "health probe failed");
                healthy = false;
                "failed"
            }
        };
        probes.insert(name.to_owned(), word.into());
    }
    let build = &state.config.build;
    let (status, word) = match healthy {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    let body = json!({
        "status": word,
        "version": build.version,
        "revision": build.revision,
        "probes": probes,
    });
    response::json(status, &body)
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
