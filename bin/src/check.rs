//! What `check` can try, beyond reading the configuration: whether the shared MCP server is there.

use anyhow::{Context as _, Result};

use crate::upstream::{Endpoint, EndpointConfig};

/// Asks the shared server, without anybody's token, for a session.
///
/// # Errors
///
/// If there is no MCP server, or none that can be reached from here.
pub(crate) fn upstream(endpoint: EndpointConfig) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime can be started")?;
    let endpoint = Endpoint::new(endpoint)?;
    Ok(runtime.block_on(endpoint.probe())?)
}
