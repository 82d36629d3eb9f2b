//! The settings of the HTTP server.

use std::time::Duration;

use crate::url::PublicUrl;

/// The configuration of a [`Broker`](crate::Broker).
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL under which clients reach the broker.
    pub public_url: PublicUrl,
    /// Host names that are allowed besides that of `public_url`. An entry with a port allows only
    /// that port.
    pub allowed_hosts: Vec<String>,
    /// Origins that may use `/mcp` from a browser besides that of `public_url`:
    /// `https://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// Limits of connections and requests.
    pub limits: HttpLimits,
    /// Maximum time for requests in flight to finish on shutdown.
    pub drain_deadline: Duration,
    /// Maximum time after that for sessions and connections to end before they are cut.
    pub stop_deadline: Duration,
    /// The build that `/healthz` reports.
    pub build: BuildInfo,
}

/// Limits of connections and requests.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Maximum bytes of a body at `/mcp`. More is 413.
    pub mcp_body: usize,
    /// Maximum bytes of a body under `/oauth/`. More is 413.
    pub oauth_body: usize,
    /// Maximum bytes of all unanswered bodies at `/mcp`. A quarter of it is the maximum of one
    /// grant, and that of all other bodies, which have a budget of their own. More is 503.
    pub bodies: usize,
    /// Maximum bytes of a request's head. More is 431. At least 8192.
    pub head_bytes: usize,
    /// Maximum header fields of a request. More is 431.
    pub head_fields: usize,
    /// Maximum time of a new connection until its first byte.
    pub first_byte_timeout: Duration,
    /// Maximum time for a request's head to arrive, on a new connection after its first byte; on a
    /// kept connection also for the next request to begin.
    pub head_timeout: Duration,
    /// Maximum time for a request's body to arrive. Longer is 408.
    pub body_timeout: Duration,
    /// Maximum time of an open connection between two requests.
    pub idle_timeout: Duration,
    /// Maximum concurrent connections. A further one takes the place of the one that has been
    /// without a request longest. If all have requests, a few more are accepted, and get 503 except
    /// at the paths of health checks.
    pub connections: usize,
    /// Maximum concurrent exchanges at `/mcp`, open streams included. More is 503. The last quarter
    /// is only for grants that have few.
    pub exchanges: usize,
    /// Maximum concurrent exchanges of one grant. More is 429.
    pub exchanges_per_grant: usize,
    /// Maximum concurrent requests on one HTTP/2 connection.
    pub streams: u32,
}

/// The build of the program.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// The version of the program.
    pub version: String,
    /// The revision of its source.
    pub revision: String,
}

impl Config {
    /// The defaults for a broker at `public_url`.
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
            bodies: 64 * 1024 * 1024,
            head_bytes: 64 * 1024,
            head_fields: 100,
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            connections: 4096,
            exchanges: 4096,
            exchanges_per_grant: 128,
            streams: 32,
        }
    }
}
