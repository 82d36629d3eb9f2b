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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use supervisor::Isolation;

    use super::*;

    const MODERN: &str =
        r#"read -r line; echo '{"jsonrpc":"2.0","id":"era","result":{"supportedVersions":["2026-07-28"]}}'"#;
    const LEGACY: &str = r#"read -r line; echo '{"jsonrpc":"2.0","id":"era","error":{"code":-32601,"message":"no"}}'"#;
    const EXITS: &str = "read -r line; exit 1";

    /// A detector, and a program that counts its starts.
    struct Setup {
        detector: EraDetector,
        supervisor: Supervisor,
        directory: tempfile::TempDir,
    }

    impl Setup {
        fn new(configured: ChildEra) -> Self {
            let isolation = Isolation {
                landlock: false,
                ..Isolation::default()
            };
            let config = supervisor::Config {
                isolation,
                ..supervisor::Config::new([])
            };
            Self {
                detector: EraDetector::new(configured),
                supervisor: Supervisor::new(config).unwrap(),
                directory: tempfile::tempdir().unwrap(),
            }
        }

        /// Replaces the program.
        fn install(&self, script: &str) {
            let starts = self.starts_file();
            let program = format!("#!/bin/sh\necho >> {}\n{script}\n", starts.display());
            // Another file, since one that runs cannot be written.
            let new = self.directory.path().join("new");
            fs::write(&new, program).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(new, self.program()).unwrap();
        }

        async fn detect(&self) -> ServerEra {
            let spec = ChildSpec {
                program: self.program().into(),
                args: vec![],
                env: vec![],
                secrets: vec![],
                tag: "tag".into(),
            };
            self.detector.detect(&self.supervisor, spec).await
        }

        fn starts(&self) -> usize {
            fs::read_to_string(self.starts_file()).map_or(0, |starts| starts.len())
        }

        fn program(&self) -> PathBuf {
            Path::join(self.directory.path(), "program")
        }

        fn starts_file(&self) -> PathBuf {
            Path::join(self.directory.path(), "starts")
        }
    }

    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn each_version_of_a_program_is_asked_once() {
        let setup = Setup::new(ChildEra::Auto);
        setup.install(MODERN);
        let (first, second) = tokio::join!(setup.detect(), setup.detect());
        assert_eq!((first, second), (ServerEra::Modern, ServerEra::Modern));
        pass(Duration::from_secs(1_000_000)).await;
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Modern, 1));
        setup.install(LEGACY);
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 2));
    }

    #[tokio::test]
    async fn legacy_program_is_asked_again_after_a_day() {
        let setup = Setup::new(ChildEra::Auto);
        setup.install(LEGACY);
        setup.detect().await;
        pass(LEGACY_LIFE - Duration::from_secs(60)).await;
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 1));
        pass(Duration::from_secs(60)).await;
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 2));
    }

    #[tokio::test]
    async fn silent_program_is_asked_again_earlier_and_then_later() {
        let setup = Setup::new(ChildEra::Auto);
        setup.install(EXITS);
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 1));
        pass(UNCERTAIN_LIFE).await;
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 2));
        pass(UNCERTAIN_LIFE).await;
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 2));
        pass(UNCERTAIN_LIFE).await;
        assert_eq!((setup.detect().await, setup.starts()), (ServerEra::Legacy, 3));
    }

    #[tokio::test]
    async fn verdict_that_a_server_contradicts_is_forgotten() {
        let setup = Setup::new(ChildEra::Auto);
        for (script, era, starts) in [
            (MODERN, ServerEra::Modern, 2),
            (EXITS, ServerEra::Legacy, 4),
            // It has said so itself.
            (LEGACY, ServerEra::Legacy, 5),
        ] {
            setup.install(script);
            setup.detect().await;
            setup.detector.forget(era).await;
            assert_eq!((setup.detect().await, setup.starts()), (era, starts));
        }
    }

    #[tokio::test]
    async fn configured_era_needs_no_question() {
        for (configured, era) in [
            (ChildEra::Legacy, ServerEra::Legacy),
            (ChildEra::Modern, ServerEra::Modern),
        ] {
            let setup = Setup::new(configured);
            setup.install(LEGACY);
            assert_eq!((setup.detect().await, setup.starts()), (era, 0));
        }
    }

    #[tokio::test]
    async fn missing_program_is_no_verdict() {
        let setup = Setup::new(ChildEra::Auto);
        assert_eq!(setup.detect().await, ServerEra::Legacy);
        setup.install(MODERN);
        assert_eq!(setup.detect().await, ServerEra::Modern);
    }
}
