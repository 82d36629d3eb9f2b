//! The parts of `check` that go beyond reading the configuration: the program of children, and a
//! connection to the shared MCP server.

use anyhow::{Context as _, Result, anyhow};
use bridge::http::{Endpoint, EndpointConfig};

use crate::{
    adapters,
    config::{ChildMode, Config, crate_configs},
};

/// Looks up the program of children, if there are children. The error says the same as the log of
/// a broker that starts with this configuration.
pub(crate) fn program(config: &Config) -> Result<(), String> {
    if config.child.mode != ChildMode::Process {
        return Ok(());
    }
    let program = crate_configs::program(config);
    let found = crate_configs::supervisor(config).find_program(&program.lookup());
    found.map(drop).map_err(adapters::program::explanation)
}

/// Opens a session at the shared server, without a token, and ends it.
pub(crate) fn upstream(endpoint: EndpointConfig) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let endpoint = Endpoint::new(endpoint)?;
    runtime.block_on(endpoint.probe()).map_err(|error| anyhow!(error))
}
