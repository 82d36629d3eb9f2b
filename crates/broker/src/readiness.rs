//! Readiness: the probes that must succeed for requests to be served.
//!
//! Probes may cost a write to the disk, so a result holds for a second, however many requests ask.
//! They also run without a request, so that the log tells of a failure soon. The log has one line
//! for each change and none for each check.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{ports::Probe, probe};

/// The time for which a result holds.
const RESULT_LIFETIME: Duration = Duration::from_secs(1);
/// The interval of checks without a request.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// The readiness probes and their last result.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    probes: Vec<Arc<dyn Probe>>,
    last: Mutex<LastCheck>,
}

#[derive(Debug, Default)]
struct LastCheck {
    at: Option<Instant>,
    failing: BTreeSet<&'static str>,
}

impl Readiness {
    pub(crate) fn new(probes: Vec<Arc<dyn Probe>>) -> Self {
        Self {
            probes,
            last: Mutex::default(),
        }
    }

    /// Checks in intervals until it is dropped. Cancel safe.
    pub(crate) async fn watch(&self) {
        loop {
            self.check().await;
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Runs the probes unless the last result still holds, logs what has changed, and returns the
    /// names of those that fail. Simultaneous checks share one run. Cancel safe.
    pub(crate) async fn check(&self) -> BTreeSet<&'static str> {
        let mut last = self.last.lock().await;
        if last.at.is_none_or(|at| at.elapsed() >= RESULT_LIFETIME) {
            let results = probe::run(&self.probes).await;
            last.at = Some(Instant::now());
            for (name, result) in results {
                match result {
                    Ok(()) if last.failing.remove(name) => {
                        tracing::info!(probe = name, "readiness probe succeeds again");
                    }
                    Ok(()) => {}
                    Err(error) if last.failing.insert(name) => {
                        tracing::error!(probe = name, error, "not ready: readiness probe failed");
                    }
                    Err(_) => {}
                }
            }
        }
        last.failing.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ports::{BoxFuture, PortError};

    #[derive(Debug, Default)]
    struct CountingProbe(AtomicUsize);

    impl Probe for CountingProbe {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn check(&self) -> BoxFuture<'_, Result<(), PortError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Err("as always".into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn probes_run_once_a_second_at_most() {
        let probe = Arc::new(CountingProbe::default());
        let readiness = Readiness::new(vec![Arc::clone(&probe) as _]);
        for _ in 0..1000 {
            assert_eq!(readiness.check().await, BTreeSet::from(["counting"]));
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(probe.0.load(Ordering::Relaxed), 10);
        drop(tokio::time::timeout(Duration::from_secs(60), readiness.watch()).await);
        assert_eq!(
            probe.0.load(Ordering::Relaxed),
            30,
            "every three seconds without requests"
        );
    }
}
