//! The backends of sessions: children, or sessions at one shared server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bridge::DropCounts;
use session::ports::Spawner;
use supervisor::Supervisor;
use tokio_util::task::TaskTracker;

use crate::{
    adapters::{child::ChildSpawner, shared_server::SharedServerSpawner},
    config::{Config, crate_configs},
    shared_server::Endpoint,
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
        let (bridge, tasks) = (crate_configs::bridge(config, drop_counts), TaskTracker::new());
        if let Some(endpoint) = crate_configs::endpoint(config) {
            tracing::info!(url = %endpoint.url, "all sessions share one MCP server");
            let endpoint = Arc::new(Endpoint::new(endpoint).context("cannot build the HTTP client")?);
            return Ok(Self {
                spawner: Arc::new(SharedServerSpawner {
                    endpoint,
                    bridge,
                    tasks: tasks.clone(),
                }),
                supervisor: None,
                tasks,
            });
        }
        let supervisor = Arc::new(Supervisor::new(crate_configs::supervisor(config))?);
        Ok(Self {
            spawner: Arc::new(ChildSpawner {
                supervisor: Arc::clone(&supervisor),
                program: crate_configs::program(config),
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
