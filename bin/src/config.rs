//! The configuration: one TOML file, environment overrides, every fault at once.
//!
//! [`keys`] is the table of every key with its default and its text; the reference in `docs/configuration.md` is
//! printed from it. [`Sources`] are injected, so that a test never touches the process environment. What a crate
//! validates itself (the scopes of Forgejo, say) is asked of that crate, and its refusal becomes a fault of the key.

mod fault;
pub mod keys;
mod load;
mod read;
pub mod reference;
mod sources;
mod upstream;
mod values;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use oauth::{
    config::{Registration, StaticClient},
    seal::Sealer,
};
use secrecy::SecretString;
use supervisor::{Delivery, Isolation, IsolationLimits};
use url::Url;

pub use self::{
    fault::{Fault, Faults},
    load::{check, load},
    sources::Sources,
};

/// Everything that the operator decides, validated.
#[derive(Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[forgejo]`
    pub forgejo: Forgejo,
    /// `[child]`
    pub child: Child,
    /// `[session]`
    pub session: Session,
    /// `[oauth]`
    pub oauth: OAuth,
    /// `[store]`
    pub store: Store,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[log]`
    pub log: Log,
}

/// Where the broker listens and what it is called.
#[derive(Debug)]
pub struct Server {
    /// The address of the listening socket.
    pub listen: SocketAddr,
    /// The issuer; everything published derives from it. It has no trailing slash when printed by the broker.
    pub public_url: Url,
    /// Further values of `Host` that are answered.
    pub allowed_hosts: Vec<String>,
    /// Further values of `Origin` that are answered.
    pub allowed_origins: Vec<String>,
    /// How long exchanges in flight may take to finish once the broker was told to stop.
    pub drain_timeout: Duration,
}

/// The Forgejo instance and the application that the broker is there.
#[derive(Debug)]
pub struct Forgejo {
    /// The root URL of the instance.
    pub url: Url,
    /// The client id of the application.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// What the broker asks a user for.
    pub scopes: Vec<String>,
    /// Logins that may sign in; empty means everyone.
    pub allowed_users: Vec<String>,
    /// Organisations whose members may sign in; empty means everyone.
    pub allowed_orgs: Vec<String>,
}

/// The MCP server that is started for each session.
#[derive(Debug)]
pub struct Child {
    /// The program, looked up in `PATH` if it has no slash.
    pub command: String,
    /// Its arguments, with placeholders.
    pub args: Vec<String>,
    /// Its own environment variables, with placeholders.
    pub env: Vec<(String, SecretString)>,
    /// How long it may take to start.
    pub start_timeout: Duration,
    /// How long it may take to stop before it is killed.
    pub stop_grace: Duration,
    /// Names of the broker's variables that it inherits.
    pub inherit_env: Vec<String>,
    /// How the values of its own variables reach it.
    pub delivery: BTreeMap<String, Delivery>,
    /// How many lines of its standard error are logged a second.
    pub stderr_lines_per_second: u32,
    /// What it may use.
    pub limits: IsolationLimits,
    /// What keeps it apart.
    pub isolation: Isolation,
    /// The server that all sessions share. With it nothing is started, and of the rest only the two times count.
    pub upstream: Option<Upstream>,
}

/// An MCP server that takes its token from each request.
#[derive(Debug)]
pub struct Upstream {
    /// Its MCP endpoint.
    pub url: Url,
    /// How long a connection to it may take to come about.
    pub connect_timeout: Duration,
    /// The longest message that is taken from it, in bytes.
    pub max_message: usize,
}

/// How many sessions live, and for how long.
#[derive(Debug)]
pub struct Session {
    /// How many sessions there may be in all.
    pub max_sessions: usize,
    /// How many of them one user may have.
    pub max_sessions_per_user: usize,
    /// How long a backend may be idle.
    pub idle_timeout: Duration,
    /// How often idle backends are looked for.
    pub reap_interval: Duration,
    /// How often credentials that are about to expire are looked for.
    pub rotate_interval: Duration,
    /// How long before its expiry a credential is renewed.
    pub refresh_lead: Duration,
    /// How long a session outlives its backend.
    pub retain: Duration,
    /// The status for a session id that the broker does not know: 404 or 410.
    pub unknown_status: u16,
}

/// What the authorization server issues.
#[derive(Debug)]
pub struct OAuth {
    /// The lifetime of access tokens.
    pub access_token_ttl: Duration,
    /// How long a refresh token may lie unused.
    pub refresh_token_ttl: Duration,
    /// The lifetime of authorization codes.
    pub code_ttl: Duration,
    /// Who may register a client.
    pub registration: Registration,
    /// With the allow-list: where answers of registered clients may go.
    pub allowed_redirect_hosts: Vec<String>,
    /// With the allow-list: whose documents may describe clients.
    pub allowed_client_domains: Vec<String>,
    /// How many clients may be registered.
    pub max_clients: u32,
    /// How many new clients may register in a minute.
    pub registrations_per_minute: u32,
    /// How many sign-ins may begin in a minute.
    pub sign_ins_per_minute: u32,
    /// How many times in a minute tokens may be issued.
    pub tokens_per_minute: u32,
    /// Clients that need no registration.
    pub clients: Vec<StaticClient>,
}

/// Where things are kept.
#[derive(Debug)]
pub struct Store {
    /// The SQLite database.
    pub path: PathBuf,
    /// The file with the key that seals Forgejo's tokens.
    pub key_file: PathBuf,
    /// The key itself, in the place of the file.
    pub key: Option<Sealer>,
}

/// Whether the broker tells what it has counted, and whom.
#[derive(Debug)]
pub struct Metrics {
    /// Whether there is `/metrics`.
    pub enabled: bool,
    /// What has to be brought as a bearer; `None` lets everyone read.
    pub token: Option<SecretString>,
}

/// What is logged, and how.
#[derive(Debug)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}
