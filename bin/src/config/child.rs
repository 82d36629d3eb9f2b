//! The section `[child]`: a process for each session, or one server that all sessions share.
//!
//! The two modes share a section, and a key that has no effect in the chosen one is an error: an
//! operator who configures isolation must not believe in one that is not there.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use supervisor::ChildUsers;
use toml::Value;
use url::{Host, Url};

use super::{
    key::ConfigKey,
    kinds::{Bytes, FilledText, Kind, PositiveDuration, bytes, choice, collect, each, kind, range, structure, text},
    reader::Reader,
    section::section,
};
use crate::template;

section! {
    /// The MCP servers.
    pub(crate) struct ChildConfig {
        /// `process`: each session has a child of its own. `http`: all sessions share one MCP
        /// server that the operator runs, and each request carries its user's token; nothing is
        /// started, and of this section only `upstream`, `era`, `start_timeout` and `stop_grace`
        /// may be set. [Shared server](shared-server.md) says how to choose.
        mode: ChildMode = "process",
        /// The MCP server that is started for each session, without a shell: a path, or a name that
        /// is looked up in `PATH`. While it is missing, `/readyz` returns 503.
        command: FilledText = "forgejo-mcp",
        /// Its arguments. `{forgejo_url}` is replaced. `{access_token}` is refused here: arguments
        /// can be read by every user of the machine.
        args: Arguments = ["--transport", "stdio", "--url", "{forgejo_url}"],
        /// Its environment variables, besides a short list of harmless ones that it inherits
        /// (`PATH`, `HOME`, `LANG`, ...). `{forgejo_url}` and `{access_token}` are replaced.
        /// Setting the key replaces the whole table.
        env: Variables = { FORGEJO_ACCESS_TOKEN = "{access_token}" },
        /// The protocol that it speaks. `legacy`: MCP 2025-11-25 or before. `modern`: MCP
        /// 2026-07-28. `auto`: before the first session, another process of it is asked; the answer
        /// holds for this version of the program file, one for `legacy` a day at most. With `mode =
        /// "http"` the shared server is asked, with the token of the first session.
        era: ChildEra = "auto",
        /// The time limit of its start. With `mode = "http"`: of the handshake of a session that is
        /// opened or revived; a session that the server has forgotten gets twice that to be opened
        /// again.
        start_timeout: PositiveDuration = "30s",
        /// The time between SIGTERM and SIGKILL. With `mode = "http"`: the time limit of the
        /// message to the server that a session has ended.
        stop_grace: Duration = "5s",
        /// Names of the broker's variables that it inherits. `HOME` and `TMPDIR` name its own
        /// directory unless they are listed.
        inherit_env: Vec<String> = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"],
        /// Variables of `child.env` whose value is written to a private file; the variable is then
        /// its path.
        secret_files: Vec<String> = [],
        /// Variables of `child.env` whose value is given once through a pipe; the variable is then
        /// the number of its descriptor.
        secret_descriptors: Vec<String> = [],
        /// The average rate at which lines of its standard error are logged; ten seconds' worth may
        /// come at once.
        stderr_lines_per_second: u32 = 50,
        /// If a layer of the isolation is missing, the broker refuses to start instead of logging a
        /// warning.
        require_isolation: bool = false,
        /// Limits of each child.
        limits: supervisor::IsolationLimits,
        /// Layers that separate children from the machine and from each other.
        isolation: supervisor::Isolation,
        /// The server that all sessions share.
        upstream: UpstreamConfig,
    }
}

section! {
    impl supervisor::IsolationLimits {
        /// Open descriptors, for each process.
        open_files: Option<u64> = 1024,
        /// Address space, for each process. Not for programs with a large garbage-collected heap,
        /// such as Node.
        address_space: Option<Bytes> = unset,
        /// Processor time, for each process, in whole seconds; then it is killed.
        cpu_time: Option<Duration> = unset,
        /// Processes and threads: of the child with a control group, else of its user (root is
        /// exempt), so use it with `isolation.users`.
        processes: Option<u64> = unset,
        /// Memory of all processes of a child together. Needs a control group with the memory
        /// controller.
        memory: Option<Bytes> = unset,
    }
}

section! {
    impl supervisor::Isolation {
        /// It gains no privileges, whatever it executes. `landlock`, `network` and
        /// `seccomp` need this.
        no_new_privileges: bool = true,
        /// It has no capabilities, even if the broker is root.
        drop_capabilities: bool = true,
        /// It sees files by an allow-list, and cannot signal or trace processes that it did not
        /// start.
        landlock: bool = true,
        /// It connects by TCP only to the port of `forgejo.url`, to those of URLs that are values
        /// of `child.env` or arguments, and to `isolation.connect_ports`, and binds no port. UDP,
        /// and the hosts at these ports, are not restricted.
        network: bool = true,
        /// TCP ports that it may connect to beyond those, such as 53 for a resolver that uses TCP.
        connect_ports: Ports = [],
        /// System calls that it does not need, and that affect other processes or the kernel
        /// itself, fail: limits and priorities of others, tracing, keys, shared memory of System V,
        /// namespaces, mounts, io_uring, BPF. Turn it off for a server with a sandbox of its own,
        /// such as a browser.
        seccomp: bool = true,
        /// Absolute paths that it may read and execute beyond the default list, such as the modules
        /// of a server.
        readable: Vec<PathBuf> = [],
        /// Absolute paths that it may read and change beyond its own directory.
        writable: Vec<PathBuf> = [],
        /// It works in an empty directory of its own, which is removed after its end.
        own_directory: bool = true,
        /// The parent of these directories; unset: `TMPDIR` or `/tmp`. Other users must be able to
        /// pass through it if children have users of their own.
        directory: Option<PathBuf> = unset,
        /// The users that children run as. `auto`: each its own, from a range that common
        /// allocators do not use, if the broker is root and if such a user can execute the program
        /// and access what the configuration names; the start warns if it cannot. `[first, last]`:
        /// each its own from this range, which nothing else may use. `off`: that of the broker.
        users: ChildUsers = "auto",
        /// A directory of the control group file system (version 2) that is delegated to the
        /// broker, and that has no processes itself: each child gets a group in it.
        cgroup: Option<PathBuf> = unset,
        // `child.require_isolation` says this.
        ..supervisor::Isolation::default()
    }
}

section! {
    /// An MCP server that takes its token from each request.
    pub(crate) struct UpstreamConfig {
        /// With `mode = "http"`: the URL of the server's MCP endpoint, such as
        /// `"http://127.0.0.1:8081/mcp"`. `https`, unless the host is a loopback address: every
        /// request carries a user's token.
        url: Option<Url> = unset,
        /// Permits plain `http` in `upstream.url` for a host that is not this one: on a network
        /// where no one else can listen.
        allow_http: bool = false,
        /// The time limit of a connection to it.
        connect_timeout: PositiveDuration = "5s",
        /// The longest message that is accepted from it; the request of a longer answer gets an
        /// error.
        max_message: MessageSize = "16MiB",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildMode {
    Process,
    Http,
}

/// The protocol era of MCP servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildEra {
    Auto,
    Legacy,
    Modern,
}

choice!(ChildEra: Auto = "auto", Legacy = "legacy", Modern = "modern");
kind!(ChildUsers, "`auto`, `off` or two numbers", users);
choice!(ChildMode: Process = "process", Http = "http");
kind!(
    /// Arguments of a child, with placeholders.
    Arguments: Vec<String>, "texts", |value| each(value, template::check_argument)
);
kind!(
    /// Environment variables of a child, with placeholders.
    Variables: Vec<(String, SecretString)>, "table of texts", variables
);
kind!(
    /// Ports that a connection can have.
    Ports: Vec<u16>, "port numbers", ports
);
kind!(
    /// The longest message of a shared server, in bytes.
    MessageSize: usize, "bytes", message_size
);

/// No server can work with messages shorter than this.
const MIN_MESSAGE_SIZE: u64 = 1024;

/// The keys of `[child]` that have an effect in both modes.
const IN_BOTH_MODES: &[&str] = &["child.mode", "child.era", "child.start_timeout", "child.stop_grace"];

impl ChildConfig {
    pub(super) fn check(&self, reader: &mut Reader, keys: &[ConfigKey]) {
        let shared = self.mode == ChildMode::Http;
        let reason = if shared {
            "has no effect with child.mode = \"http\": nothing is started"
        } else {
            "has no effect without child.mode = \"http\""
        };
        for key in keys.iter().map(|key| key.path.as_str()) {
            if key.starts_with("child.")
                && !IN_BOTH_MODES.contains(&key)
                && key.starts_with("child.upstream.") != shared
                && reader.is_set(key)
            {
                reader.report(key, reason);
            }
        }
        match &self.upstream.url {
            None if shared => reader.report_first("child.upstream.url", "required with child.mode = \"http\""),
            Some(url) if shared && url.scheme() == "http" && !is_loopback(url) && !self.upstream.allow_http => {
                reader.report(
                    "child.upstream.url",
                    "must be https, unless its host is a loopback address or child.upstream.allow_http is set: each \
                     request carries a user's token",
                );
            }
            _ => {}
        }
    }
}

fn message_size(value: &Value) -> Result<usize, String> {
    let size = bytes(value)?;
    if size < MIN_MESSAGE_SIZE {
        return Err("must be at least 1KiB".to_owned());
    }
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

fn users(value: &Value) -> Result<ChildUsers, String> {
    match value.as_str().map(str::trim) {
        Some("auto") => Ok(ChildUsers::Auto),
        Some("off") => Ok(ChildUsers::Off),
        Some(_) | None => match range(value) {
            Ok(range) => Ok(ChildUsers::Range(range)),
            Err(_) => Err("must be \"auto\", \"off\", or the first and the last number: [100000, 165535]".to_owned()),
        },
    }
}

fn ports(value: &Value) -> Result<Vec<u16>, String> {
    let error = || "must be an array of port numbers above zero".to_owned();
    let port = |value: &Value| {
        let port = value.as_integer().and_then(|port| u16::try_from(port).ok());
        port.filter(|port| *port > 0)
    };
    let ports = structure(value).and_then(|value| value.as_array()?.iter().map(port).collect());
    ports.ok_or_else(error)
}

fn variables(value: &Value) -> Result<Vec<(String, SecretString)>, String> {
    let error = || "must be a table of texts".to_owned();
    let table = structure(value).ok_or_else(error)?;
    let variable = |(name, value): (&String, &Value)| {
        let value = SecretString::from(text(value).map_err(|_| error())?);
        template::check_variable(name, &value).map(|()| (name.clone(), value))
    };
    collect(table.as_table().ok_or_else(error)?.iter().map(variable))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
