//! The state that all connections and exchanges share.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    host_origin::HostOriginPolicy,
    metrics::MetricsEndpoint,
    ports::{Authority, McpService, Probe},
};

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) config: Config,
    pub(crate) host_origin: HostOriginPolicy,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) mcp: Arc<dyn McpService>,
    pub(crate) probes: Vec<Arc<dyn Probe>>,
    /// What `/metrics` shows, if it is served.
    pub(crate) counted: Option<MetricsEndpoint>,
    /// Cancelled when nothing new is begun any more.
    pub(crate) draining: CancellationToken,
    /// The exchanges that a shutdown lets finish: all but streams that only listen.
    pub(crate) unfinished: TaskTracker,
    /// All tasks: connections and exchanges.
    pub(crate) tasks: TaskTracker,
}
