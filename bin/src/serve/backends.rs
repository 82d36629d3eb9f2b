//! The backends of sessions: children, or sessions at one shared server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bridge::DropCounts;
use session::ports::Spawner;
use supervisor::Supervisor;
use tokio_util::task::TaskTracker;

use crate::{
    adapters::{child::ChildSpawner, upstream::UpstreamSpawner},
    config::{Config, crates},
    upstream::Endpoint,
};

#[derive(Debug)]
pub(super) struct Backends {
    /// The spawner of the configured mode.
    pub(super) spawner: Arc<dyn Spawner>,
    /// The supervisor of the children, if there are children.
    pub(super) supervisor: Option<Arc<Supervisor>>,
    /// One task for each backend.
    tasks: TaskTracker,
}

impl Backends {
    pub(super) fn new(config: &Config, drop_counts: DropCounts) -> Result<Self> {
        let (bridge, tasks) = (crates::bridge(config, drop_counts), TaskTracker::new());
        if let Some(endpoint) = crates::endpoint(config) {
            tracing::info!(url = %endpoint.url, "all sessions share one MCP server");
            let endpoint = Arc::new(Endpoint::new(endpoint).context("cannot build the HTTP client")?);
            return Ok(Self {
                spawner: Arc::new(UpstreamSpawner {
                    endpoint,
                    bridge,
                    tasks: tasks.clone(),
                }),
                supervisor: None,
                tasks,
            });
        }
        let supervisor = Arc::new(Supervisor::new(crates::supervisor(config))?);
        Ok(Self {
            spawner: Arc::new(ChildSpawner {
                supervisor: Arc::clone(&supervisor),
                program: crates::program(config),
                bridge,
                tasks: tasks.clone(),
            }),
            supervisor: Some(supervisor),
            tasks,
        })
    }

    /// Waits for the end of all backends, and until it is logged. Call it when no backend is
    /// spawned any more.
    pub(super) async fn stop_all(&self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.stop_all().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}
