//! The lifecycle of the broker: build, serve, drain.

use std::{io, sync::Arc};

use secrecy::SecretString;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app_state::AppState,
    body_budget::BodyBudget,
    config::Config,
    exchange_limiter::ExchangeLimiter,
    host_origin::HostOriginPolicy,
    listener,
    metrics::MetricsEndpoint,
    ports::{Authority, McpService, Metrics, Probe},
    readiness::Readiness,
};

/// The HTTP server, ready to serve.
#[derive(Debug)]
pub struct Broker {
    state: AppState,
}

/// Why serving ended before the shutdown.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listening socket is broken.
    #[error("the listening socket cannot accept connections any more")]
    Accept(#[source] io::Error),
}

impl Broker {
    /// Builds the server. Nothing runs before [`Broker::serve`].
    #[must_use]
    pub fn new(config: Config, authority: Arc<dyn Authority>, mcp: Arc<dyn McpService>) -> Self {
        let state = AppState {
            host_origin: HostOriginPolicy::new(&config),
            user_bodies: BodyBudget::of_users(&config.limits),
            stranger_bodies: BodyBudget::of_strangers(&config.limits),
            exchanges: ExchangeLimiter::new(config.limits.exchanges, config.limits.exchanges_per_grant),
            config,
            authority,
            mcp,
            readiness: Readiness::default(),
            metrics: None,
            draining: CancellationToken::new(),
            unfinished: TaskTracker::new(),
            tasks: TaskTracker::new(),
        };
        Self { state }
    }

    /// Returns 503 from `/readyz` while one of these probes fails. They run every few seconds, so
    /// that a failure is logged soon, and at requests to `/readyz`, at most once a second.
    #[must_use]
    pub fn with_readiness_probes(mut self, probes: Vec<Arc<dyn Probe>>) -> Self {
        self.state.readiness = Readiness::new(probes);
        self
    }

    /// Counts requests and serves `/metrics`: to everyone, or with `token` only to its holders.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn Metrics>, token: Option<SecretString>) -> Self {
        self.state.metrics = Some(MetricsEndpoint { metrics, token });
        self
    }

    /// Serves `listener` until `shutdown` is cancelled, drains, and returns once no connection is
    /// left.
    ///
    /// The drain, in order: the listener closes and `/readyz` returns 503; requests in flight
    /// finish, and so do the first ones of connections that were just accepted and the next ones of
    /// those that were just in use, within [`Config::drain_deadline`]; [`McpService::stop`] ends
    /// the sessions, and with them the streams that only listen; connections close. Connections
    /// that are left after [`Config::stop_deadline`] are cut.
    ///
    /// Dropping the future cuts all connections.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Accept`] if the listening socket broke, after the drain.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let mut state = self.state;
        state.draining = shutdown.child_token();
        let state = Arc::new(state);
        let cut = CancellationToken::new();
        let _cut_on_drop = cut.clone().drop_guard();
        // A connection checks `cut` only while it drains.
        let _drain_on_drop = state.draining.clone().drop_guard();

        let watching = Arc::clone(&state);
        let watch = async move { watching.readiness.watch().await };
        state
            .tasks
            .spawn(state.draining.clone().run_until_cancelled_owned(watch));
        let result = listener::accept(&listener, &state, &cut).await;
        drop(listener);
        state.draining.cancel();
        drain(&state, &cut).await;
        result.map_err(BrokerError::Accept)
    }
}

async fn drain(state: &AppState, cut: &CancellationToken) {
    let config = &state.config;
    state.unfinished.close();
    if timeout(config.drain_deadline, state.unfinished.wait()).await.is_err() {
        let left = state.unfinished.len();
        tracing::warn!(left, "requests are still in flight after the drain timeout");
    }
    state.tasks.close();
    let stop = async {
        state.mcp.stop().await;
        state.tasks.wait().await;
    };
    if timeout(config.stop_deadline, stop).await.is_err() {
        tracing::warn!("connections are still open after the stop timeout; cutting them");
    }
    cut.cancel();
    state.tasks.wait().await;
}
