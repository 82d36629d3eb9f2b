//! What the broker says of itself: `/healthz`, `/readyz`, and the page at the root.
//!
//! `/healthz` tells whether it works, probe by probe, and what was built; `/readyz` whether it takes requests. Before
//! [`Broker::serve`](crate::Broker::serve) nothing is accepted at all, so "not ready" is only seen while it drains.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    app_state::AppState,
    ports::{Probe, ResponseBody},
    response,
};

/// How long a probe may take. A longer one has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The answer of `/healthz`: 200, or 503 if a probe failed.
pub(crate) async fn health(state: &AppState) -> Response<ResponseBody> {
    let mut checks = JoinSet::new();
    for probe in &state.probes {
        checks.spawn(check(Arc::clone(probe)));
    }
    let mut healthy = true;
    let mut probes: Map<String, Value> = Map::new();
    for probe in &state.probes {
        // What is not overwritten below has panicked.
        probes.insert(probe.name().to_owned(), "failed".into());
    }
    while let Some(checked) = checks.join_next().await {
        match checked {
            Ok((name, true)) => {
                probes.insert(name.to_owned(), "ok".into());
            }
            Ok((_, false)) | Err(_) => healthy = false,
        }
    }
    let build = &state.config.build;
    let (status, word) = if healthy {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "failed")
    };
    let said = json!({
        "status": word,
        "version": build.version,
        "revision": build.revision,
        "probes": probes,
    });
    response::json(status, &said)
}

/// The answer of `/readyz`.
pub(crate) fn readiness(state: &AppState) -> Response<ResponseBody> {
    if state.draining.is_cancelled() {
        response::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        response::text(StatusCode::OK, "ready\n")
    }
}

/// The page at the root, for whoever opens the URL in a browser.
pub(crate) fn index(state: &AppState) -> Response<ResponseBody> {
    let url = state.config.public_url.mcp();
    let text = format!(
        "This is forgejo-mcp-broker. It gives every user of a Forgejo instance their own MCP server.\n\n\
         Add this URL to your MCP client, and sign in when it asks you to:\n\n    {url}\n"
    );
    response::text(StatusCode::OK, text)
}

async fn check(probe: Arc<dyn Probe>) -> (&'static str, bool) {
    let name = probe.name();
    let works = match timeout(PROBE_TIMEOUT, probe.check()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(probe = name, error, "the probe failed");
            false
        }
        Err(_elapsed) => {
            tracing::error!(probe = name, "the probe took too long");
            false
        }
    };
    (name, works)
}
