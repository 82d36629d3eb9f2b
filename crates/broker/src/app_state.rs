//! The state that all connections and requests share.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body_budget::BodyBudget,
    config::Config,
    exchange_limiter::ExchangeLimiter,
    host_origin::HostOriginPolicy,
    metrics::MetricsEndpoint,
    ports::{Authority, McpService},
    readiness::Readiness,
};

#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) config: Config,
    pub(crate) host_origin: HostOriginPolicy,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) mcp: Arc<dyn McpService>,
    pub(crate) readiness: Readiness,
    pub(crate) exchanges: Arc<ExchangeLimiter>,
    /// The bodies of authenticated requests.
    pub(crate) user_bodies: Arc<BodyBudget>,
    pub(crate) stranger_bodies: Arc<BodyBudget>,
    /// `None` if `/metrics` is not served.
    pub(crate) metrics: Option<MetricsEndpoint>,
    /// Cancelled when the drain begins.
    pub(crate) draining: CancellationToken,
    /// The requests that a drain waits for: all except streams that only listen.
    pub(crate) unfinished: TaskTracker,
    /// All tasks: connections and requests.
    pub(crate) tasks: TaskTracker,
}
