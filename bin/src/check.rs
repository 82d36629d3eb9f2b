//! The part of `check` that goes beyond reading the configuration: a connection to the shared MCP
//! server.

use anyhow::{Context as _, Result, anyhow};
use bridge::http::{Endpoint, EndpointConfig};

/// Opens a session at the shared server, without a token, and ends it.
pub(crate) fn upstream(endpoint: EndpointConfig) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let endpoint = Endpoint::new(endpoint)?;
    runtime.block_on(endpoint.probe()).map_err(|error| anyhow!(error))
}
