//! The self-descriptions of the broker: `/healthz`, `/readyz`, and the index page.
//!
//! `/healthz` reports the result of each probe and the build; `/readyz` whether requests are
//! accepted. Before [`Broker::serve`](crate::Broker::serve) no connection is accepted, so "not
//! ready" is visible only during the drain.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    app_state::AppState,
    ports::{Probe, ResponseBody},
    response,
};

/// Maximum time of a probe. A longer one counts as failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The response of `/healthz`: 200, or 503 if a probe failed.
pub(crate) async fn health(state: &AppState) -> Response<ResponseBody> {
    let mut checks = JoinSet::new();
    let mut probes: Map<String, Value> = Map::new();
    for probe in &state.probes {
        // Stays "failed" if the probe panics.
        probes.insert(probe.name().to_owned(), "failed".into());
        checks.spawn(check(Arc::clone(probe)));
    }
    let mut healthy = true;
    while let Some(checked) = checks.join_next().await {
        match checked {
            Ok((name, true)) => {
                probes.insert(name.to_owned(), "ok".into());
            }
            Ok((_, false)) | Err(_) => healthy = false,
        }
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

/// The response of `/readyz`.
pub(crate) fn readiness(state: &AppState) -> Response<ResponseBody> {
    if state.draining.is_cancelled() {
        response::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        response::text(StatusCode::OK, "ready\n")
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

async fn check(probe: Arc<dyn Probe>) -> (&'static str, bool) {
    let name = probe.name();
    match timeout(PROBE_TIMEOUT, probe.check()).await {
        Ok(Ok(())) => return (name, true),
        Ok(Err(error)) => tracing::error!(probe = name, error, "health probe failed"),
        Err(_elapsed) => tracing::error!(probe = name, "health probe timed out"),
    }
    (name, false)
}
