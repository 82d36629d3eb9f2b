//! The backends of sessions: children, or one shared server.

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
        let bridge = crates::bridge(config, drop_counts);
        if let Some(endpoint) = crates::endpoint(config) {
            tracing::info!(url = %endpoint.url, "all sessions share one MCP server");
            let endpoint = Endpoint::new(endpoint).context("cannot build the HTTP client")?;
            return Ok(Self::Upstream(Arc::new(UpstreamSpawner::new(endpoint, bridge))));
        }
        let supervisor = Arc::new(Supervisor::new(crates::supervisor(config))?);
        let spawner = ChildSpawner::new(Arc::clone(&supervisor), crates::program(config), bridge);
        Ok(Self::Children(supervisor, Arc::new(spawner)))
    }

    pub(super) fn spawner(&self) -> Arc<dyn Spawner> {
        match self {
            Self::Children(_, spawner) => Arc::<ChildSpawner>::clone(spawner),
            Self::Upstream(spawner) => Arc::<UpstreamSpawner>::clone(spawner),
        }
    }

    /// The supervisor of the children, if there are children.
    pub(super) fn supervisor(&self) -> Option<Arc<Supervisor>> {
        match self {
            Self::Children(supervisor, _) => Some(Arc::clone(supervisor)),
            Self::Upstream(_) => None,
        }
    }

    /// Waits for the end of all backends. Call it when no backend is spawned any more.
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
