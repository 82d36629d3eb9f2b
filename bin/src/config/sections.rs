//! The sections `[server]`, `[forgejo]`, `[session]`, `[store]`, `[metrics]` and `[log]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use oauth::{forgejo::Scopes, seal::Sealer};
use secrecy::SecretString;
use session::UnknownStatus;
use toml::Value;
use url::Url;

use super::{
    key::ConfigKey,
    kinds::{Bytes, FilledText, Kind, PositiveDuration, choice, each, kind, list, text},
    reader::Reader,
    section::{Section, section},
};

section! {
    /// The listening socket, and the name that clients use.
    pub(crate) struct ServerConfig {
        /// The address that the broker listens on.
        listen: SocketAddr = "127.0.0.1:8080",
        /// The URL under which clients reach the broker; it is the OAuth issuer, and everything
        /// that the broker publishes derives from it, never from request headers. `https`, unless
        /// the host is a loopback address. It may have a path.
        public_url: Url = "http://127.0.0.1:8080",
        /// Values of the `Host` header that are accepted besides the host of `public_url`.
        allowed_hosts: Hosts = [],
        /// Values of the `Origin` header that are accepted besides the origin of `public_url`, such
        /// as `"http://localhost:6274"`.
        allowed_origins: Origins = [],
        /// The most connections. At the limit a new one takes the place of the one that has been
        /// without a request longest. The limit of open files must be well above it.
        max_connections: usize = 4096,
        /// The most requests to `/mcp` that are in progress at once, open streams included; then
        /// 503. The last quarter is only for sign-ins that have few.
        max_exchanges: usize = 4096,
        /// The most of them that belong to one sign-in of a user with a client; then 429.
        max_exchanges_per_grant: usize = 128,
        /// The most bytes of request bodies to `/mcp` that are in memory at once; then 503. One
        /// sign-in may have a quarter of them, but one body of 4 MiB in any case. Bodies elsewhere,
        /// which strangers may send, have another quarter.
        max_body_memory: Bytes = "64MiB",
        /// After SIGTERM: how long requests in flight may take to finish.
        drain_timeout: Duration = "10s",
    }
}

section! {
    /// The Forgejo instance, and the broker's OAuth2 application there.
    pub(crate) struct ForgejoConfig {
        /// The root URL of the Forgejo instance.
        url: Url = required,
        /// The client id of the OAuth2 application that is registered there.
        client_id: FilledText = required,
        /// Its client secret.
        client_secret: SecretString = required,
        /// The scopes that the broker requests for each user. At least one must be an API scope
        /// (`read:user`, `write:repository`, ...): Forgejo gives a token **without any API scope
        /// full access**, so the broker refuses to start with such a list. `read:user` is needed to
        /// identify the user.
        scopes: Scopes = required,
        /// Logins that may sign in. Empty: everyone, or whom `allowed_orgs` lets in.
        allowed_users: Vec<String> = [],
        /// Organizations whose members may sign in; needs the scope `read:organization`. Empty:
        /// everyone, or whom `allowed_users` lets in.
        allowed_orgs: Vec<String> = [],
    }
}

/// The section `[session]`: sessions, and the time limits of the messages in them.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    pub(crate) sessions: session::Config,
    pub(crate) messages: MessageConfig,
}

// Two definitions for one table: the first fills the struct of another crate.
impl Section for SessionConfig {
    fn keys(path: &str, keys: &mut Vec<ConfigKey>) {
        session::Config::keys(path, keys);
        MessageConfig::keys(path, keys);
    }

    fn read(reader: &mut Reader, path: &str) -> Self {
        Self {
            sessions: session::Config::read(reader, path),
            messages: MessageConfig::read(reader, path),
        }
    }
}

section! {
    /// The requests in a session.
    pub(crate) struct MessageConfig {
        /// The time that an MCP server has to answer a request of the client. Then the client gets
        /// an error, and the server a cancellation.
        request_timeout: PositiveDuration = "10m",
        /// The time that a client has to answer a request of the MCP server that it has received,
        /// such as a question to its user. Then the server gets an error.
        question_timeout: PositiveDuration = "10m",
        /// The time that a client of 2026-07-28 has to answer questions that end its request. The
        /// MCP server waits for that long.
        input_timeout: PositiveDuration = "5m",
        /// Serves requests of clients up to 2025-11-25 that do not send their session id back, as
        /// claude.ai and ChatGPT do: they belong to the session that their sign-in has opened last.
        /// `false`: 400.
        sessionless_legacy: bool = true,
    }
}

section! {
    impl session::Config {
        /// The most sessions in all, dormant ones included. A new session replaces the one that has
        /// been dormant longest; if none is dormant: 503.
        max_sessions: usize = 256,
        /// The most sessions of one user; then 429, in the same way.
        max_sessions_per_user: usize = 16,
        /// The idle time after which the child of a session is stopped; the session itself is kept
        /// for `retain`.
        idle_timeout: PositiveDuration = "15m",
        /// The interval between two searches for idle sessions.
        reap_interval: PositiveDuration = "30s",
        /// The interval between two searches for tokens that are about to expire.
        rotate_interval: PositiveDuration = "1m",
        /// A Forgejo token that has less than this left is renewed, and the sessions that use it
        /// move to fresh children with the new one; at half its life, if it lives for less than
        /// twice this.
        refresh_lead: Duration = "5m",
        /// The time for which a session outlives its last use. Without a child, because it was
        /// idle, has crashed, or the broker was restarted, the session is dormant, and the next
        /// request starts a fresh child. `"0s"`: a session ends with its child.
        retain: Duration = "24h",
        /// The status for a session id that the broker does not know. 404 makes clients start a new
        /// session; 410 distinguishes unknown sessions from ended ones.
        unknown_status: UnknownStatus = 410,
        // `crate_configs::session` adds the times of `[child]`.
        ..session::Config::default()
    }
}

section! {
    /// Files.
    pub(crate) struct StoreConfig {
        /// The SQLite database. Its directory must be writable: the database has `-wal` and `-shm`
        /// files beside it, and a `-lock` file, by which brokers on one database detect each other.
        path: PathBuf = "broker.db",
        /// The file with the key that seals Forgejo's tokens in the database. It is created,
        /// readable by its owner only, if it does not exist and the database holds no account yet.
        /// Back it up apart from the database: without it every user has to sign in again. Changing
        /// it: [accounts](accounts.md).
        key_file: PathBuf = "broker.key",
        /// The key itself, instead of a file, for one that comes from the environment: `NUMBER
        /// HEX`, or several with commas between them, the newest last, such as `1 ` and the output
        /// of `openssl rand -hex 32`.
        key: SealingKey = "",
    }
}

section! {
    /// `/metrics`.
    pub(crate) struct MetricsConfig {
        /// Serves `/metrics`: [the list of metrics](metrics.md).
        enabled: bool = false,
        /// The bearer token that a request for metrics needs. Unset: everyone who reaches the
        /// broker can read them.
        token: Option<SecretString> = unset,
    }
}

section! {
    /// The log.
    pub(crate) struct LogConfig {
        /// Lines for people, or one JSON object a line.
        format: LogFormat = "pretty",
        /// Which events are logged: `info`, or by part, such as `info,session=debug,child=warn`.
        filter: LogFilter = "info",
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Pretty,
    /// One JSON object a line.
    Json,
}

choice!(LogFormat: Pretty = "pretty", Json = "json");
choice!(UnknownStatus: NotFound = "404", Gone = "410");
kind!(
    Scopes,
    "texts",
    |value| Scopes::new(list(value)?).map_err(|error| error.to_string()),
    STAND_IN = "read:user,read:organization"
);
kind!(
    /// Values of `Host`.
    Hosts: Vec<String>, "texts", |value| each(value, check_host)
);
kind!(
    /// Values of `Origin`.
    Origins: Vec<String>, "texts", |value| each(value, check_origin)
);
kind!(
    /// The key that seals tokens, or empty text.
    SealingKey: Option<Sealer>, "secret text", sealing_key
);
kind!(
    /// A filter of log events, in the syntax of `tracing_subscriber::EnvFilter`.
    LogFilter: String, "text", log_filter
);

/// A name as it stands in `Host`: with a port or without.
fn check_host(given: &str) -> Result<(), String> {
    let authority = given.parse::<http::uri::Authority>();
    if authority.is_ok_and(|authority| !authority.host().is_empty() && !given.contains('@')) {
        Ok(())
    } else {
        Err("each must be a host, with a port or without: no scheme, no path".to_owned())
    }
}

/// An origin as browsers write it (RFC 6454 section 6.2).
fn check_origin(given: &str) -> Result<(), String> {
    let origin = Url::parse(given).map(|url| url.origin());
    if origin.is_ok_and(|origin| origin.is_tuple() && origin.ascii_serialization() == given) {
        Ok(())
    } else {
        Err("each must be an origin as browsers write it, such as \"http://localhost:6274\"".to_owned())
    }
}

fn sealing_key(value: &Value) -> Result<Option<Sealer>, String> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let sealer = Sealer::from_text(&SecretString::from(text));
    sealer.map(Some).map_err(|error| error.to_string())
}

fn log_filter(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err("not a filter of log events".to_owned()),
    }
}
