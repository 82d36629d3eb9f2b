//! The broker as a process, with a configuration of its own in a temporary directory.
//!
//! The process gets its settings by file and environment, as from an operator; its log (JSON lines
//! on standard error) is read back. Dropping the handle kills the process and removes its
//! directory.

mod log;
mod processes;
mod programs;
mod shared_mcp;

use std::{
    fs,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

pub use self::{
    log::Log,
    processes::Process,
    programs::{Programs, programs},
    shared_mcp::SharedMcp,
};
use crate::{forgejo::FakeForgejo, forgejo_mcp};

/// Longer than a start takes on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any stop that the defaults allow.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Passes the socket on standard input as systemd does (`sd_listen_fds`): as descriptor 3, with the
/// process id in the environment.
const PASS_SOCKET: &str = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;

/// The event in the broker's log after which it accepts connections.
const SERVING: &str = "serving";

#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    pub port: u16,
    /// The MCP server that it starts for each session; `None` if `settings` name one that all
    /// sessions share.
    pub child: Option<ChildCommand>,
    /// Further settings as environment overrides: dotted key and value.
    pub settings: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
    /// The test keeps the listening socket and passes it on at each start, as a service manager
    /// does, so that no connection is refused while the broker restarts.
    pub keep_socket: bool,
}

#[derive(Clone, Debug)]
pub struct ChildCommand {
    pub command: PathBuf,
    pub args: Vec<String>,
    /// Its environment, with the broker's placeholders.
    pub env: Vec<(String, String)>,
}

/// A running broker, or one that has ended and can be started again on the same directory and port.
#[derive(Debug)]
pub struct BrokerProcess {
    program: PathBuf,
    options: BrokerOptions,
    /// Its file without the section of the MCP server.
    configuration: String,
    directory: TempDir,
    socket: Option<TcpListener>,
    process: Option<Child>,
    log: Log,
}

impl ChildCommand {
    pub fn fake_forgejo_mcp(program: &Path) -> Self {
        let args = ["--transport", "stdio", "--url", "{forgejo_url}"];
        Self {
            command: program.to_owned(),
            args: args.map(str::to_owned).to_vec(),
            env: vec![("FORGEJO_ACCESS_TOKEN".to_owned(), "{access_token}".to_owned())],
        }
    }

    pub fn plain(program: &Path) -> Self {
        Self {
            command: program.to_owned(),
            args: vec![],
            env: vec![],
        }
    }

    /// The same server with the tools for tests ([`TEST_TOOLS`](forgejo_mcp::TEST_TOOLS)).
    #[must_use]
    pub fn with_test_tools(mut self) -> Self {
        self.env.push((forgejo_mcp::TEST_TOOLS.to_owned(), "1".to_owned()));
        self
    }

    /// The same server with a script ([`SCRIPT`](forgejo_mcp::SCRIPT)).
    #[must_use]
    pub fn with_script(mut self, file: &forgejo_mcp::ScriptFile) -> Self {
        let path = file.path().display().to_string();
        self.env.push((forgejo_mcp::SCRIPT.to_owned(), path));
        self
    }

    /// The same server with another behavior toward the eras ([`ERA`](forgejo_mcp::ERA)).
    #[must_use]
    pub fn with_era(mut self, era: &str) -> Self {
        self.env.push((forgejo_mcp::ERA.to_owned(), era.to_owned()));
        self
    }

    fn configuration(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name} = {value:?}"));
        let env: Vec<String> = env.collect();
        let (command, args, env) = (&self.command, &self.args, env.join(", "));
        format!("[child]\ncommand = {command:?}\nargs = {args:?}\nenv = {{ {env} }}\n")
    }
}

impl BrokerProcess {
    /// Starts a broker with a Forgejo and waits until it serves. An error holds its log.
    pub async fn start(program: &Path, forgejo: &FakeForgejo, options: BrokerOptions) -> Result<Self> {
        let bind = || TcpListener::bind(("127.0.0.1", options.port));
        let socket = options.keep_socket.then(bind).transpose()?;
        let mut broker = Self {
            program: program.to_owned(),
            configuration: configuration(forgejo, options.port),
            directory: TempDir::with_prefix("forgejo-mcp-broker-")?,
            socket,
            options,
            process: None,
            log: Log::default(),
        };
        broker.start_again().await?;
        Ok(broker)
    }

    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the broker is still running");
        }
        let child = self.options.child.as_ref().map(ChildCommand::configuration);
        let file = self.configuration.clone() + &child.unwrap_or_default();
        fs::write(self.directory.path().join("broker.toml"), file)?;
        let overrides = self.options.settings.iter().map(|(key, value)| {
            let variable = format!("BROKER_{}", key.to_uppercase().replace('.', "__"));
            (variable, value)
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
            .envs(self.options.environment.clone())
            .stdin(stdin)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} could not be started", self.program.display()))?;
        let stderr = process.stderr.take().context("standard error was piped")?;
        let serving = self.log.follow(stderr, SERVING);
        self.process = Some(process);
        match timeout(START_TIMEOUT, serving).await {
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

    /// Sets further settings, or others, and the MCP server of each session, for the next start.
    pub fn configure(&mut self, settings: &[(&str, &str)], child: Option<ChildCommand>) {
        for (key, value) in settings {
            self.unset(&[key]);
            self.options.settings.push(((*key).to_owned(), (*value).to_owned()));
        }
        self.options.child = child;
    }

    /// Removes settings, for the next start.
    pub fn unset(&mut self, keys: &[&str]) {
        self.options.settings.retain(|(set, _)| !keys.contains(&set.as_str()));
    }

    /// The root URL, which is also the issuer.
    pub fn url(&self) -> String {
        public_url(self.options.port)
    }

    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.url())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn children(&self) -> Result<Vec<Process>> {
        let process = self.process.as_ref().and_then(Child::id);
        processes::children_of(process.context("the broker is not running")?)
    }

    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::TERM).await
    }

    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::KILL).await
    }

    async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let process = self.process.as_ref().and_then(Child::id);
        let pid = processes::pid(process.context("the broker is not running")?)?;
        kill_process(pid, signal)?;
        self.wait().await
    }

    async fn wait(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the broker is not running")?;
        let status = timeout(STOP_TIMEOUT, process.wait()).await;
        let status = status.context("the broker does not end")??;
        self.log.ended().await;
        Ok(status)
    }
}

pub fn public_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

pub fn redirect_uri(port: u16) -> String {
    format!("{}/oauth/callback", public_url(port))
}

/// A free port on 127.0.0.1, a different one at each call.
pub fn free_port() -> u16 {
    /// Below the range from which Linux takes ports for outgoing connections.
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Processes that test at the same time begin at different ports.
    let start = u16::try_from(std::process::id() % 97).unwrap_or_default() * 100;
    let mut ports = (0..COUNT).map(|_| {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        FIRST + start.wrapping_add(step) % COUNT
    });
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or_else(|| panic!("no free port between {FIRST} and {}", FIRST + COUNT))
}

fn configuration(forgejo: &FakeForgejo, port: u16) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\npublic_url = {public_url:?}\n\
         [forgejo]\nurl = {url:?}\nclient_id = {client_id:?}\nclient_secret = {client_secret:?}\n\
         scopes = [\"read:user\", \"read:organization\", \"write:repository\"]\n\
         [log]\nformat = \"json\"\nfilter = \"debug\"\n",
        public_url = public_url(port),
        url = forgejo.url(),
        client_id = forgejo.client_id(),
        client_secret = forgejo.client_secret(),
    )
}
