//! The backends of sessions: children, or sessions at one shared server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bridge::http::Endpoint;
use broker::ports::Probe;
use session::ports::Host;
use supervisor::Supervisor;
use tokio_util::task::TaskTracker;

use crate::{
    adapters::{
        child::ChildStarter,
        conversation::{BridgeHost, ServerStarter},
        era::EraDetector,
        program::ProgramProbe,
        shared_server::SharedServerStarter,
    },
    config::{Config, crate_configs},
};

#[derive(Debug)]
pub(super) struct Backends {
    /// Makes conversations with servers of the configured mode.
    pub(super) host: Arc<dyn Host>,
    /// The supervisor of the children, if there are children.
    pub(super) supervisor: Option<Arc<Supervisor>>,
    /// One task for each backend.
    tasks: TaskTracker,
}

impl Backends {
    pub(super) fn new(config: &Config, bridge: bridge::Config) -> Result<Self> {
        let tasks = TaskTracker::new();
        let (starter, supervisor): (Arc<dyn ServerStarter>, _) = match crate_configs::endpoint(config) {
            Some(endpoint) => {
                tracing::info!(url = %endpoint.url, "all sessions share one MCP server");
                let starter = SharedServerStarter {
                    endpoint: Arc::new(Endpoint::new(endpoint).context("cannot build the HTTP client")?),
                    renewal_limiter: Arc::default(),
                    tasks: tasks.clone(),
                };
                (Arc::new(starter), None)
            }
            None => {
                let supervisor = Arc::new(Supervisor::new(crate_configs::supervisor(config))?);
                let starter = ChildStarter {
                    supervisor: Arc::clone(&supervisor),
                    program: crate_configs::program(config),
                    era: Arc::new(EraDetector::new(config.child.era)),
                    tasks: tasks.clone(),
                };
                (Arc::new(starter), Some(supervisor))
            }
        };
        Ok(Self {
            host: Arc::new(BridgeHost {
                config: bridge,
                starter,
            }),
            supervisor,
            tasks,
        })
    }

    /// What must work for sessions to open.
    pub(super) fn probes(&self, config: &Config) -> Vec<Arc<dyn Probe>> {
        let probe = |supervisor: &Arc<Supervisor>| -> Arc<dyn Probe> {
            Arc::new(ProgramProbe {
                supervisor: Arc::clone(supervisor),
                program: crate_configs::program(config),
            })
        };
        self.supervisor.iter().map(probe).collect()
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
