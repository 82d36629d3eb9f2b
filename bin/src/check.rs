//! The part of `check` that goes beyond reading the configuration: a connection to the shared MCP
//! server.

use anyhow::{Context as _, Result};

use crate::upstream::{Endpoint, EndpointConfig};

/// Opens a session at the shared server, without a token, and ends it.
///
/// # Errors
///
/// If there is no MCP server at the endpoint, or it cannot be reached.
pub(crate) fn upstream(endpoint: EndpointConfig) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let endpoint = Endpoint::new(endpoint)?;
    Ok(runtime.block_on(endpoint.probe())?)
}
