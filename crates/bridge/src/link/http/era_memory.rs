//! The remembered era of a server, for all links.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

use crate::link::era::EraAnswer;

/// The life of a verdict against the modern era.
const LEGACY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The life of such a verdict if the server has said nothing: it may be about to start.
const UNCERTAIN_LIFE: Duration = Duration::from_secs(60);
/// The era of a server, if it was asked.
#[derive(Debug, Default)]
pub(super) struct EraMemory {
    /// Held while the question is open: others wait for its answer.
    pub(super) verdict: Mutex<Option<Verdict>>,
}

#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) answer: EraAnswer,
    pub(super) since: Instant,
}

impl Verdict {
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        match self.answer {
            EraAnswer::Modern => true,
            EraAnswer::Legacy => age < LEGACY_LIFE,
            EraAnswer::Silent => age < UNCERTAIN_LIFE,
        }
    }
}
