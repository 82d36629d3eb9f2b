//! What serves the sessions: children, or the links to one shared server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bridge::DropCounts;
use session::ports::Spawner;
use supervisor::Supervisor;

use crate::{
    adapters::{child::ChildSpawner, upstream::UpstreamSpawner},
    config::{Config, crates},
    upstream::Endpoint,
};

/// The spawner of the configured mode.
#[derive(Debug)]
pub(super) enum Backends {
    Children(Arc<Supervisor>, Arc<ChildSpawner>),
    Upstream(Arc<UpstreamSpawner>),
}

impl Backends {
    pub(super) fn new(config: &Config, drop_counts: DropCounts) -> Result<Self> {
        if let Some(endpoint) = crates::endpoint(config) {
            tracing::info!(url = %endpoint.url, "all sessions share one MCP server");
            let endpoint = Endpoint::new(endpoint).context("no HTTP client can be made")?;
            let spawner = UpstreamSpawner::new(
                endpoint,
                bridge::Config {
                    drop_counts,
                    ..crates::bridge_upstream(config)
                },
            );
            return Ok(Self::Upstream(Arc::new(spawner)));
        }
        let supervisor = Arc::new(Supervisor::new(crates::supervisor(config))?);
        let bridge = bridge::Config {
            drop_counts,
            ..crates::bridge(config)
        };
        let spawner = ChildSpawner::new(Arc::clone(&supervisor), crates::program(config), bridge);
        Ok(Self::Children(supervisor, Arc::new(spawner)))
    }

    pub(super) fn spawner(&self) -> Arc<dyn Spawner> {
        match self {
            Self::Children(_, spawner) => Arc::<ChildSpawner>::clone(spawner),
            Self::Upstream(spawner) => Arc::<UpstreamSpawner>::clone(spawner),
        }
    }

    /// What knows the children, if there are any.
    pub(super) fn supervisor(&self) -> Option<Arc<Supervisor>> {
        match self {
            Self::Children(supervisor, _) => Some(Arc::clone(supervisor)),
            Self::Upstream(_) => None,
        }
    }

    /// Waits until nothing is left of any backend. To be called once nothing is spawned any more.
    pub(super) async fn drained(&self) {
        match self {
            Self::Children(supervisor, spawner) => {
                supervisor.stop_all().await;
                spawner.drained().await;
            }
            Self::Upstream(spawner) => spawner.drained().await,
        }
    }
}
