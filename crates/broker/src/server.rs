//! The broker's life: build, serve, drain.

use std::{io, sync::Arc};

use secrecy::SecretString;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app_state::AppState,
    config::Config,
    host_origin::HostOriginPolicy,
    listener,
    metrics::MetricsEndpoint,
    ports::{Authority, McpService, Metrics, Probe},
};

/// The HTTP face, ready to serve.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    authority: Arc<dyn Authority>,
    mcp: Arc<dyn McpService>,
    probes: Vec<Arc<dyn Probe>>,
    counted: Option<MetricsEndpoint>,
}

/// Why serving ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listening socket is of no use any more.
    #[error("no connection can be accepted any more")]
    Accept(#[source] io::Error),
}

impl Broker {
    /// Puts the face together. Nothing runs before [`Broker::serve`].
    #[must_use]
    pub fn new(
        config: Config,
        authority: Arc<dyn Authority>,
        mcp: Arc<dyn McpService>,
        probes: Vec<Arc<dyn Probe>>,
    ) -> Self {
        Self {
            config,
            authority,
            mcp,
            probes,
            counted: None,
        }
    }

    /// Serves `/metrics`, and counts its own exchanges: for everyone who reaches it, or for whoever has the token.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<dyn Metrics>, token: Option<SecretString>) -> Self {
        self.counted = Some(MetricsEndpoint { metrics, token });
        self
    }

    /// Serves `listener` until `shutdown` is cancelled, drains, and returns when no connection is left.
    ///
    /// The drain, in order: nothing is accepted any more and `/readyz` says 503; exchanges in flight finish, and so do the first
    /// ones of connections that were accepted just before and the next ones of those that were in use just now, for at most [`Config::drain_deadline`]; [`McpService::drain`] ends the sessions, and with them the streams
    /// that only listen; connections close. What is left [`Config::stop_deadline`] later is cut.
    ///
    /// Dropping the future cuts all connections.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Accept`] if the listening socket broke; the drain has been gone through then, too.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let state = Arc::new(AppState {
            host_origin: HostOriginPolicy::new(&self.config),
            config: self.config,
            authority: self.authority,
            mcp: self.mcp,
            probes: self.probes,
            counted: self.counted,
            draining: shutdown.child_token(),
            unfinished: TaskTracker::new(),
            tasks: TaskTracker::new(),
        });
        let cut = CancellationToken::new();
        let _cut_on_drop = cut.clone().drop_guard();
        // A connection that is not being drained does not look at `cut`.
        let _drain_on_drop = state.draining.clone().drop_guard();

        let outcome = listener::accept(&listener, &state, &cut).await;
        drop(listener);
        state.draining.cancel();
        drain(&state, &cut).await;
        outcome.map_err(BrokerError::Accept)
    }
}

async fn drain(state: &AppState, cut: &CancellationToken) {
    let config = &state.config;
    state.unfinished.close();
    if timeout(config.drain_deadline, state.unfinished.wait()).await.is_err() {
        tracing::warn!(
            left = state.unfinished.len(),
            "exchanges are left after the drain deadline"
        );
    }
    state.tasks.close();
    let ending = async {
        state.mcp.drain().await;
        state.tasks.wait().await;
    };
    if timeout(config.stop_deadline, ending).await.is_err() {
        tracing::warn!("connections are cut after the stop deadline");
    }
    cut.cancel();
    state.tasks.wait().await;
}
