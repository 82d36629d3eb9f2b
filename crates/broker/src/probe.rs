//! Running probes: concurrently, each with a time limit.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use crate::ports::{PortError, Probe};

/// Maximum time of a probe. A longer one counts as failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The result of each probe, by its name. A probe that panics or takes too long has failed.
pub(crate) async fn run(probes: &[Arc<dyn Probe>]) -> Vec<(&'static str, Result<(), PortError>)> {
    let panicked = |probe: &Arc<dyn Probe>| (probe.name(), Err("the probe panicked".into()));
    let mut results: Vec<_> = probes.iter().map(panicked).collect();
    let mut checks = JoinSet::new();
    for (index, probe) in probes.iter().cloned().enumerate() {
        checks.spawn(async move {
            let checked = timeout(PROBE_TIMEOUT, probe.check()).await;
            let timed_out = |_| format!("no result within {PROBE_TIMEOUT:?}");
            (index, checked.map_err(timed_out).map_err(PortError::from).flatten())
        });
    }
    while let Some(checked) = checks.join_next().await {
        if let Ok((index, result)) = checked {
            results[index].1 = result;
        }
    }
    results
}
