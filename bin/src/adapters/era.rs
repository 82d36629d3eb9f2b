//! The protocol era of the program of children: configured, or found out by asking a process of its
//! own.
//!
//! A server may exit on a first message that it does not expect, and a server of both eras commits
//! itself by the first message that it gets, so the question goes to a process that serves no one
//! (MCP 2026-07-28, stdio, "Backward Compatibility"). It is started as any child, with the
//! credential of the start that needs to know. The verdict holds for the program file; its
//! arguments are those of this configuration. The first starts wait for one question together, and
//! later ones do not ask.
//!
//! Invariant: a start never fails because of the question. In doubt the server is a legacy one.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bridge::{EraAnswer, ServerEra};
use supervisor::{ChildSpec, Supervisor};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::config::ChildEra;

/// The time that a server has to answer, from its start on.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// The time that a start waits for the end of the process that was asked.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// The life of a verdict against the modern era that the server has given by an answer.
const LEGACY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The life of the first one that the server has given by silence or by its exit, which may have
/// another cause. It doubles with each one like it.
const UNCERTAIN_LIFE: Duration = Duration::from_secs(600);
/// Knows the era of the program.
#[derive(Debug)]
pub(crate) struct EraDetector {
    configured: ChildEra,
    /// Held while the question is open: others wait for its answer.
    verdict: Mutex<Option<Verdict>>,
}

#[derive(Debug)]
struct Verdict {
    answer: EraAnswer,
    file: ProgramFile,
    expires_at: Option<Instant>,
    life: Duration,
}

/// A version of a program.
#[derive(Debug, PartialEq, Eq)]
struct ProgramFile {
    path: PathBuf,
    modified: Option<SystemTime>,
    size: u64,
}

impl EraDetector {
    pub(crate) fn new(configured: ChildEra) -> Self {
        Self {
            configured,
            verdict: Mutex::new(None),
        }
    }

    /// The era of a server of this spec. Cancel safe: another start asks again.
    pub(crate) async fn detect(&self, supervisor: &Supervisor, spec: ChildSpec) -> ServerEra {
        match self.configured {
            ChildEra::Legacy => return ServerEra::Legacy,
            ChildEra::Modern => return ServerEra::Modern,
            ChildEra::Auto => {}
        }
        let Some(file) = ProgramFile::of(supervisor, spec.clone()).await else {
            return ServerEra::Legacy;
        };
        let mut verdict = self.verdict.lock().await;
        let known = verdict.as_ref().filter(|verdict| verdict.file == file);
        if let Some(known) = known.filter(|verdict| verdict.expires_at.is_none_or(|at| Instant::now() < at)) {
            return known.answer.era();
        }
        let before = known.filter(|verdict| verdict.answer == EraAnswer::Silent);
        let life = before.map_or(UNCERTAIN_LIFE, |before| before.life.saturating_mul(2));
        let Ok(child) = supervisor.spawn(spec).await else {
            // The start itself meets the same error.
            return ServerEra::Legacy;
        };
        let answer = match child.take_io() {
            Some(io) => timeout(PROBE_TIMEOUT, bridge::ask_era(io))
                .await
                .unwrap_or(EraAnswer::Silent),
            None => EraAnswer::Silent,
        };
        // A server that takes long to end does so by itself.
        let _ = timeout(STOP_TIMEOUT, child.stop()).await;
        let life = match answer {
            EraAnswer::Modern => None,
            EraAnswer::Legacy => Some(LEGACY_LIFE),
            EraAnswer::Silent => Some(life.min(LEGACY_LIFE)),
        };
        tracing::info!(program = %file.path.display(), ?answer, "the program was asked for its protocol era");
        *verdict = Some(Verdict {
            answer,
            file,
            expires_at: life.map(|life| Instant::now() + life),
            life: life.unwrap_or_default(),
        });
        answer.era()
    }

    /// Forgets the verdict: a server does not behave as it says.
    pub(crate) async fn forget(&self, era: ServerEra) {
        let mut verdict = self.verdict.lock().await;
        let wrong = verdict.take_if(|verdict| verdict.answer != EraAnswer::Legacy && verdict.answer.era() == era);
        if wrong.is_some() {
            tracing::info!(?era, "the program will be asked for its protocol era again");
        }
    }
}

impl ProgramFile {
    /// The program of a spec; `None` if there is none, which the start itself reports.
    async fn of(supervisor: &Supervisor, spec: ChildSpec) -> Option<Self> {
        let path = supervisor.find_program(spec).await.ok()?;
        let metadata = std::fs::metadata(&path).ok()?;
        Some(Self {
            path,
            modified: metadata.modified().ok(),
            size: metadata.len(),
        })
    }
}
