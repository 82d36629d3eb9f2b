//! The settings of the HTTP face.

use std::time::Duration;

use crate::url::PublicUrl;

/// What a [`Broker`](crate::Broker) has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients reach the broker.
    pub public_url: PublicUrl,
    /// Host names that are allowed besides the one of `public_url`. An entry with a port allows that port alone.
    pub allowed_hosts: Vec<String>,
    /// Origins that may use `/mcp` from a browser besides the one of `public_url`: `https://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// How much, how many, how long.
    pub limits: HttpLimits,
    /// How long exchanges in flight may take to finish on shutdown.
    pub drain_deadline: Duration,
    /// How long, after that, sessions and connections may take to end before they are cut.
    pub stop_deadline: Duration,
    /// What `/healthz` says of the build.
    pub build: BuildInfo,
}

/// HttpLimits of connections and requests.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Bytes of a body at `/mcp`. More is 413.
    pub mcp_body: usize,
    /// Bytes of a body under `/oauth/`. More is 413.
    pub oauth_body: usize,
    /// Bytes of a request's head. More is 431. At least 8192.
    pub head_bytes: usize,
    /// Header fields of a request. More is 431.
    pub head_fields: usize,
    /// How long a request's head may take to arrive; on a kept connection also how long the next one may take to begin.
    pub head_timeout: Duration,
    /// How long a request's body may take to arrive. Longer is 408.
    pub body_timeout: Duration,
    /// How long a connection may be open without any exchange on it.
    pub idle_timeout: Duration,
    /// Connections at once. Further ones wait to be accepted.
    pub connections: usize,
    /// Exchanges at once on one HTTP/2 connection.
    pub streams: u32,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// The version of the program.
    pub version: String,
    /// The revision of its source.
    pub revision: String,
}

impl Config {
    /// The defaults for a broker at `public_url`.
    #[must_use]
    pub fn new(public_url: PublicUrl, build: BuildInfo) -> Self {
        Self {
            public_url,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            limits: HttpLimits::default(),
            drain_deadline: Duration::from_secs(10),
            stop_deadline: Duration::from_secs(15),
            build,
        }
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            mcp_body: 4 * 1024 * 1024,
            oauth_body: 64 * 1024,
            head_bytes: 64 * 1024,
            head_fields: 100,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            connections: 4096,
            streams: 128,
        }
    }
}
