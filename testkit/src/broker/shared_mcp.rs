//! The double of `forgejo-mcp` as the one server that all sessions of a broker share.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

use super::Log;
use crate::{forgejo::FakeForgejo, forgejo_mcp};

/// A running server, or one that was killed and can be started again on the same port. Dropping it
/// kills it.
#[derive(Debug)]
pub struct SharedMcp {
    program: PathBuf,
    forgejo: String,
    port: u16,
    strict: &'static str,
    era: &'static str,
    process: Option<Child>,
    log: Log,
}

impl SharedMcp {
    /// Starts a server of an [era](forgejo_mcp::ERA) for a Forgejo, and waits until it serves. An
    /// error holds its log.
    pub async fn start(
        program: PathBuf,
        forgejo: &FakeForgejo,
        port: u16,
        strict: bool,
        era: &'static str,
    ) -> Result<Self> {
        let mut server = Self {
            program,
            forgejo: forgejo.url().to_owned(),
            port,
            strict: if strict { "1" } else { "0" },
            era,
            process: None,
            log: Log::default(),
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts it again after it was killed, with a new log.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the server is still running");
        }
        self.log = Log::default();
        let mut process = Command::new(&self.program)
            .args(["--transport", "http", "--http-port", &self.port.to_string()])
            .args(["--url", &self.forgejo])
            .env_clear()
            .env(forgejo_mcp::TEST_TOOLS, "1")
            .env(forgejo_mcp::STRICT, self.strict)
            .env(forgejo_mcp::ERA, self.era)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} could not be started", self.program.display()))?;
        let stderr = process.stderr.take().context("standard error was piped")?;
        drop(self.log.follow(stderr, ""));
        tokio::select! {
            () = self.log.contains("serving on http") => {}
            status = process.wait() => {
                self.log.ended().await;
                bail!("the server ended before it served ({}):\n{}", status?, self.log.text());
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// Makes it answer 400 to a session that it has not opened, from its next start on.
    pub fn set_bad_request_for_unknown_session(&mut self) {
        self.strict = "400";
    }

    /// Makes it a server of another [era](forgejo_mcp::ERA), from its next start on.
    pub fn set_era(&mut self, era: &'static str) {
        self.era = era;
    }

    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server is not running")?;
        process.kill().await?;
        self.log.ended().await;
        Ok(())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    pub fn log(&self) -> &Log {
        &self.log
    }
}
