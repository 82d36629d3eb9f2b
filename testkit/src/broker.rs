//! The broker as a real process, with a configuration of its own in a temporary directory.
//!
//! The process is told everything by its file and its environment, as an operator would; what it says is read from its
//! log (JSON lines on standard error). Dropping the handle kills the process; its directory goes with it.

mod log;
mod ports;
mod processes;
mod programs;
mod upstream;

use std::{
    fmt::Write as _,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

pub use self::{
    log::Log,
    ports::free_port,
    processes::{Process, children_of},
    programs::{Programs, programs},
    upstream::SharedMcp,
};
use crate::forgejo::FakeForgejo;

/// Longer than a start takes on a machine that is busy with something else.
const LONGEST_START: Duration = Duration::from_secs(60);
/// Longer than any stop that the defaults allow.
const LONGEST_STOP: Duration = Duration::from_secs(60);
/// Passes the socket on standard input as systemd does (`sd_listen_fds`): as descriptor 3, with the process told by its id.
const PASS_SOCKET: &str = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;

/// The event in the broker's log after which connections are accepted.
const SERVING: &str = "serving";

/// What a broker is started with.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The port on 127.0.0.1; [`free_port`] finds one.
    pub port: u16,
    /// The MCP server that it starts for each session; `None` if `settings` say where one is that all sessions share.
    pub child: Option<ChildCommand>,
    /// Further settings as environment overrides: dotted key and value.
    pub settings: Vec<(String, String)>,
    /// Further variables of its environment: switches that only a program built for tests knows.
    pub environment: Vec<(String, String)>,
    /// Whether the listening socket is kept by the test and passed on at each start, as a service manager does, so that no
    /// connection is refused while the broker restarts.
    pub keep_socket: bool,
}

/// The MCP server behind each session.
#[derive(Clone, Debug)]
pub struct ChildCommand {
    /// The program.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, with the broker's placeholders.
    pub env: Vec<(String, String)>,
}

/// A running broker, or one that has ended and can be started again on the same directory and port.
#[derive(Debug)]
pub struct BrokerProcess {
    program: PathBuf,
    options: BrokerOptions,
    /// What its file says but for the MCP server.
    configuration: String,
    directory: TempDir,
    socket: Option<TcpListener>,
    process: Option<Child>,
    log: Log,
}

impl ChildCommand {
    /// The double of `forgejo-mcp`.
    #[must_use]
    pub fn fake_forgejo_mcp(program: &Path) -> Self {
        let args = ["--transport", "stdio", "--url", "{forgejo_url}"];
        Self {
            command: program.to_owned(),
            args: args.map(str::to_owned).to_vec(),
            env: vec![("FORGEJO_ACCESS_TOKEN".to_owned(), "{access_token}".to_owned())],
        }
    }

    /// A server that needs no arguments and no environment.
    #[must_use]
    pub fn plain(program: &Path) -> Self {
        Self {
            command: program.to_owned(),
            args: vec![],
            env: vec![],
        }
    }

    /// The same with the tools that are there for tests only ([`TEST_TOOLS`](crate::child::TEST_TOOLS)).
    #[must_use]
    pub fn with_test_tools(mut self) -> Self {
        self.env.push((crate::child::TEST_TOOLS.to_owned(), "1".to_owned()));
        self
    }

    /// The section of the configuration that names it.
    fn configuration(&self) -> Result<String> {
        // JSON's texts and arrays are TOML's too.
        let quoted = |value: &str| serde_json::to_string(value);
        let variable = |(name, value): &(String, String)| Ok(format!("{name} = {}", quoted(value)?));
        let env: Result<Vec<String>> = self.env.iter().map(variable).collect();
        Ok(format!(
            "[child]\ncommand = {}\nargs = {}\nenv = {{ {} }}\n",
            quoted(&self.command.to_string_lossy())?,
            serde_json::to_string(&self.args)?,
            env?.join(", ")
        ))
    }
}

impl BrokerProcess {
    /// Starts a broker against a Forgejo and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it cannot be started, ends before it serves, or does not serve within a minute; the error holds its log.
    pub async fn start(program: &Path, forgejo: &FakeForgejo, options: BrokerOptions) -> Result<Self> {
        let directory = TempDir::with_prefix("forgejo-mcp-broker-")?;
        let configuration = configuration(forgejo, options.port)?;
        let log = Log::default();
        let socket = options
            .keep_socket
            .then(|| TcpListener::bind(("127.0.0.1", options.port)));
        let mut broker = Self {
            program: program.to_owned(),
            options,
            configuration,
            directory,
            socket: socket.transpose()?,
            process: None,
            log,
        };
        broker.start_again().await?;
        Ok(broker)
    }

    /// Starts the broker again after it has ended: same directory, same port.
    ///
    /// # Errors
    ///
    /// As for [`BrokerProcess::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the broker is still running");
        }
        let child = self
            .options
            .child
            .as_ref()
            .map(ChildCommand::configuration)
            .transpose()?;
        let file = self.configuration.clone() + &child.unwrap_or_default();
        std::fs::write(self.directory.path().join("broker.toml"), file)?;
        let overrides = self.options.settings.iter();
        let overrides = overrides.map(|(key, value)| {
            (
                format!("BROKER_{}", key.to_uppercase().replace('.', "__")),
                value.clone(),
            )
        });
        let (mut command, stdin) = match &self.socket {
            Some(socket) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", PASS_SOCKET]).arg(&self.program);
                (shell, Stdio::from(OwnedFd::from(socket.try_clone()?)))
            }
            None => (Command::new(&self.program), Stdio::null()),
        };
        let mut process = command
            .args(["serve", "--config", "broker.toml"])
            .current_dir(self.directory.path())
            .envs(overrides)
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} could not be started", self.program.display()))?;
        let stderr = process.stderr.take().context("standard error was piped")?;
        let serving = self.log.follow(stderr, SERVING);
        self.process = Some(process);
        match timeout(LONGEST_START, serving).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_ended)) => {
                let status = self.wait().await?;
                bail!("the broker ended before it served ({status}):\n{}", self.log.text());
            }
            Err(_elapsed) => {
                self.kill().await?;
                bail!("the broker does not serve:\n{}", self.log.text());
            }
        }
    }

    /// Sets further settings, or others, for the next start, and which MCP server is started for each session.
    pub fn configure(&mut self, settings: &[(&str, &str)], child: Option<ChildCommand>) {
        for (key, value) in settings {
            self.options.settings.retain(|(set, _)| set != key);
            self.options.settings.push(((*key).to_owned(), (*value).to_owned()));
        }
        self.options.child = child;
    }

    /// Takes settings back, from the next start on.
    pub fn unset(&mut self, keys: &[&str]) {
        self.options.settings.retain(|(set, _)| !keys.contains(&set.as_str()));
    }

    /// The root URL, which is also the issuer.
    #[must_use]
    pub fn url(&self) -> String {
        public_url(self.options.port)
    }

    /// The URL that a client is given.
    #[must_use]
    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.url())
    }

    /// The directory with its configuration, database and key.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has logged, over all its lives.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The processes that it has started and that are alive.
    ///
    /// # Errors
    ///
    /// If the broker is not running or the list of processes cannot be read.
    pub fn children(&self) -> Result<Vec<Process>> {
        children_of(self.pid()?)
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::TERM).await
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::KILL).await
    }

    async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let pid = self.pid()?;
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id is a positive number")?;
        rustix::process::kill_process(pid, signal)?;
        self.wait().await
    }

    async fn wait(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the broker is not running")?;
        let status = timeout(LONGEST_STOP, process.wait())
            .await
            .context("the broker does not end")??;
        self.log.settled().await;
        Ok(status)
    }

    fn pid(&self) -> Result<u32> {
        self.process
            .as_ref()
            .and_then(Child::id)
            .context("the broker is not running")
    }
}

/// The root URL of a broker on a port.
#[must_use]
pub fn public_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Where Forgejo sends a browser back to.
#[must_use]
pub fn redirect_uri(port: u16) -> String {
    format!("{}/oauth/callback", public_url(port))
}

fn configuration(forgejo: &FakeForgejo, port: u16) -> Result<String> {
    // JSON's texts and arrays are TOML's too.
    let quoted = |value: &str| serde_json::to_string(value);
    let mut file = String::new();
    writeln!(
        file,
        "[server]\nlisten = \"127.0.0.1:{port}\"\npublic_url = {}",
        quoted(&public_url(port))?
    )?;
    writeln!(
        file,
        "[forgejo]\nurl = {}\nclient_id = {}",
        quoted(forgejo.url())?,
        quoted(forgejo.client_id())?
    )?;
    writeln!(file, "client_secret = {}", quoted(forgejo.client_secret())?)?;
    writeln!(
        file,
        "scopes = [\"read:user\", \"read:organization\", \"write:repository\"]"
    )?;
    writeln!(file, "[log]\nformat = \"json\"\nfilter = \"debug\"")?;
    Ok(file)
}
