//! `broker`'s metrics are what `session` tells its watcher, and what there is at the moment somebody asks.
//!
//! Every label comes from a fixed list: no user, no session, nothing that a client wrote.

mod counts;
mod names;

use std::sync::Arc;

use broker::ports::{BoxError, CompletedRequest, Metrics};
use session::Registry;
use supervisor::Supervisor;

pub use self::counts::Counts;
#[cfg(test)]
pub(crate) use self::counts::PREFIX;

/// What `/metrics` shows.
#[derive(Debug)]
pub struct MetricsPage {
    counts: Arc<Counts>,
    registry: Arc<Registry>,
    supervisor: Option<Arc<Supervisor>>,
}

impl MetricsPage {
    /// The page of these counts, and of what these two hold when it is asked for. Without a supervisor there are no children.
    #[must_use]
    pub fn new(counts: Arc<Counts>, registry: Arc<Registry>, supervisor: Option<Arc<Supervisor>>) -> Self {
        Self {
            counts,
            registry,
            supervisor,
        }
    }
}

impl Metrics for MetricsPage {
    fn text(&self) -> Result<String, BoxError> {
        self.counts.stand(
            self.registry.stats(),
            self.supervisor.as_ref().map_or(0, |supervisor| supervisor.live()),
        );
        Ok(self.counts.text()?)
    }

    fn request_completed(&self, completed: CompletedRequest) {
        self.counts.request_completed(completed);
    }
}
