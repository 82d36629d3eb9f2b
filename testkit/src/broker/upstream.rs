//! The double of `forgejo-mcp` as the one server that all sessions of a broker share.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

use super::Log;
use crate::{child, forgejo::FakeForgejo};

/// A running server, or one that has ended and can be started again on the same port. Dropping it kills it.
#[derive(Debug)]
pub struct SharedMcp {
    program: PathBuf,
    forgejo: String,
    port: u16,
    /// Whether it checks tokens and sessions ([`child::STRICT`]).
    strict: bool,
    process: Option<Child>,
    log: Log,
}

impl SharedMcp {
    /// Starts a server for a Forgejo, and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it cannot be started or ends before it serves; the error holds its log.
    pub async fn start(program: PathBuf, forgejo: &FakeForgejo, port: u16, strict: bool) -> Result<Self> {
        let mut server = Self {
            program,
            forgejo: forgejo.url().to_owned(),
            port,
            strict,
            process: None,
            log: Log::default(),
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    ///
    /// As for [`SharedMcp::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the server is still running");
        }
        // What it logs from now on.
        self.log = Log::default();
        let mut process = Command::new(&self.program)
            .args(["--transport", "http", "--http-port", &self.port.to_string()])
            .args(["--url", &self.forgejo])
            .env_clear()
            .env(child::TEST_TOOLS, "1")
            .env(child::STRICT, if self.strict { "1" } else { "0" })
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
                self.log.settled().await;
                bail!("the server ended before it served ({}):\n{}", status?, self.log.text());
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server is not running")?;
        process.kill().await?;
        self.log.settled().await;
        Ok(())
    }

    /// The URL of its endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// What it has logged since it was started last.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}
