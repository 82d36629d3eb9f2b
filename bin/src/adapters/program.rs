//! `broker`'s readiness probe of the program of children, by `supervisor`.

use std::sync::Arc;

use broker::ports::{BoxFuture, PortError, Probe};
use supervisor::{SpawnError, Supervisor};

use super::child::Program;

/// Fails while the program is missing or not executable.
#[derive(Debug)]
pub(crate) struct ProgramProbe {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) program: Program,
}

impl Probe for ProgramProbe {
    fn name(&self) -> &'static str {
        "program"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async {
            let found = self.supervisor.find_program(self.program.lookup()).await;
            Ok(found.map(drop).map_err(explanation)?)
        })
    }
}

/// The reason that no child can be started, for the operator: in the log and from `check`.
pub(crate) fn explanation(error: SpawnError) -> String {
    let error = anyhow::Error::from(error);
    format!("child.command: {error:#}; install the program, or name another one")
}
