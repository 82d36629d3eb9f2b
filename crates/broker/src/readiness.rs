//! Readiness: the probes that must succeed for requests to be served.
//!
//! A monitoring system asks every few seconds, so the log has one line for each change and none for
//! each check.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{ports::Probe, probe};

/// The readiness probes, and those of them that failed at the last check.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    probes: Vec<Arc<dyn Probe>>,
    failing: Mutex<BTreeSet<&'static str>>,
}

impl Readiness {
    pub(crate) fn new(probes: Vec<Arc<dyn Probe>>) -> Self {
        Self {
            probes,
            failing: Mutex::default(),
        }
    }

    /// Runs the probes, logs what has changed, and returns the names of those that fail.
    pub(crate) async fn check(&self) -> BTreeSet<&'static str> {
        let results = probe::run(&self.probes).await;
        // Each insertion and removal is whole, so a poisoned lock is still consistent.
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, result) in results {
            match result {
                Ok(()) if failing.remove(name) => tracing::info!(probe = name, "readiness probe succeeds again"),
                Ok(()) => {}
                Err(error) if failing.insert(name) => {
                    tracing::warn!(probe = name, error, "not ready: readiness probe failed");
                }
                Err(_) => {}
            }
        }
        failing.clone()
    }
}
