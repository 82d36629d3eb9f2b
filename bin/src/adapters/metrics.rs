//! `broker`'s metrics: events of `session`, counted, and the current numbers of sessions and
//! children.
//!
//! Every label value comes from a fixed list: no user, no session, no text of a client.

mod counts;
mod names;

use std::sync::Arc;

use broker::ports::{CompletedRequest, Metrics, PortError};
use session::Registry;
use supervisor::Supervisor;

pub(crate) use self::counts::Counts;
#[cfg(test)]
pub(crate) use self::counts::PREFIX;

#[derive(Debug)]
pub(crate) struct MetricsPage {
    counts: Arc<Counts>,
    registry: Arc<Registry>,
    supervisor: Option<Arc<Supervisor>>,
}

impl MetricsPage {
    /// A page of these counts, and of the current numbers of sessions and of children. Without a
    /// supervisor there are none.
    pub(crate) fn new(counts: Arc<Counts>, registry: Arc<Registry>, supervisor: Option<Arc<Supervisor>>) -> Self {
        Self {
            counts,
            registry,
            supervisor,
        }
    }
}

impl Metrics for MetricsPage {
    fn text(&self) -> Result<String, PortError> {
        self.counts.update(
            self.registry.stats(),
            self.supervisor.as_ref().map_or(0, |supervisor| supervisor.live()),
        );
        Ok(self.counts.text()?)
    }

    fn request_completed(&self, completed: CompletedRequest) {
        self.counts.request_completed(completed);
    }
}
