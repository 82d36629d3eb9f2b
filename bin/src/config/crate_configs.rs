//! The configuration of each crate, derived from the operator's.

use std::time::Duration;

use anyhow::Result;
use bridge::{ServerEra, http::EndpointConfig};
use broker::{BuildInfo, HttpLimits, PublicUrl};
use oauth::forgejo::ForgejoConfig;
use secrecy::ExposeSecret as _;
use supervisor::{Delivery, Isolation};
use url::Url;

use super::{ChildEra, ChildMode, Config};
use crate::{adapters::child::Program, version};

/// The time after a child's own grace until it is gone: the kernel needs a moment to kill it.
const KILL_TIME: Duration = Duration::from_secs(5);

/// Requests of a session that the shared server may work on at once: each has a connection there,
/// and may bring a message of the largest size.
const MAX_IN_FLIGHT: usize = 64;

pub(crate) fn forgejo(config: &Config) -> ForgejoConfig {
    let forgejo = &config.forgejo;
    ForgejoConfig {
        url: root(&forgejo.url),
        client_id: forgejo.client_id.clone(),
        client_secret: forgejo.client_secret.clone(),
        scopes: forgejo.scopes.clone(),
    }
}

pub(crate) fn oauth(config: &Config) -> oauth::Config {
    oauth::Config {
        public_url: root(&config.server.public_url),
        refresh_lead: config.session.sessions.refresh_lead,
        allowed_users: config.forgejo.allowed_users.clone(),
        allowed_orgs: config.forgejo.allowed_orgs.clone(),
        ..config.oauth.clone()
    }
}

pub(crate) fn supervisor(config: &Config) -> supervisor::Config {
    let child = &config.child;
    let files = child.secret_files.iter().map(|name| (name.clone(), Delivery::File));
    let descriptors = child
        .secret_descriptors
        .iter()
        .map(|name| (name.clone(), Delivery::Descriptor));
    let forgejo = config.forgejo.url.port_or_known_default().into_iter();
    // The operator may give children another address of Forgejo, or of a proxy.
    let values = child.env.iter().map(|(_, value)| value.expose_secret());
    let texts = child.args.iter().map(String::as_str).chain(values);
    let given = texts.filter_map(|text| Url::parse(text).ok()?.port_or_known_default());
    let forgejo = forgejo.chain(given);
    supervisor::Config {
        start_timeout: child.start_timeout,
        stop_grace: child.stop_grace,
        inherit_env: child.inherit_env.clone(),
        stderr_lines_per_second: child.stderr_lines_per_second,
        limits: child.limits.clone(),
        isolation: Isolation {
            required: child.require_isolation,
            connect_ports: forgejo.chain(child.isolation.connect_ports.clone()).collect(),
            ..child.isolation.clone()
        },
        program: Some(program(config).lookup()),
        delivery: files.chain(descriptors).collect(),
        ..supervisor::Config::new(std::env::vars_os())
    }
}

pub(crate) fn program(config: &Config) -> Program {
    Program {
        command: config.child.command.clone().into(),
        args: config.child.args.clone(),
        env: config.child.env.clone(),
        forgejo_url: root(&config.forgejo.url),
    }
}

pub(crate) fn bridge(config: &Config) -> bridge::Config {
    let mut bridge = bridge::Config {
        // Sessions give a child this long to start. The limit of the bridge must not come at the
        // same moment: its response would be a stream, which the registry takes for the response of
        // a live child.
        handshake_timeout: config.child.start_timeout.saturating_mul(2),
        request_timeout: config.session.messages.request_timeout,
        question_timeout: config.session.messages.question_timeout,
        park_time: config.session.messages.input_timeout,
        sessionless_legacy: config.session.messages.sessionless_legacy,
        ..bridge::Config::default()
    };
    if config.child.mode == ChildMode::Http {
        bridge.max_line = config.child.upstream.max_message;
        bridge.max_in_flight = MAX_IN_FLIGHT;
    }
    bridge
}

/// The endpoint of the server that all sessions share, if there is one.
pub(crate) fn endpoint(config: &Config) -> Option<EndpointConfig> {
    let upstream = &config.child.upstream;
    let url = upstream.url.clone().filter(|_| config.child.mode == ChildMode::Http)?;
    Some(EndpointConfig {
        url,
        era: match config.child.era {
            ChildEra::Auto => None,
            ChildEra::Legacy => Some(ServerEra::Legacy),
            ChildEra::Modern => Some(ServerEra::Modern),
        },
        connect_timeout: upstream.connect_timeout,
        stop_grace: config.child.stop_grace,
    })
}

pub(crate) fn session(config: &Config) -> session::Config {
    session::Config {
        start_timeout: config.child.start_timeout,
        stop_deadline: config.child.stop_grace + KILL_TIME,
        ..config.session.sessions.clone()
    }
}

pub(crate) fn broker(config: &Config) -> Result<broker::Config> {
    let build = BuildInfo {
        version: version::VERSION.to_owned(),
        revision: version::REVISION.to_owned(),
    };
    let server = &config.server;
    let limits = HttpLimits {
        connections: server.max_connections,
        bodies: usize::try_from(server.max_body_memory).unwrap_or(usize::MAX),
        exchanges: server.max_exchanges,
        exchanges_per_grant: server.max_exchanges_per_grant,
        ..HttpLimits::default()
    };
    Ok(broker::Config {
        limits,
        allowed_hosts: server.allowed_hosts.clone(),
        allowed_origins: server.allowed_origins.clone(),
        drain_deadline: server.drain_timeout,
        // Connections end after the sessions, which have their own deadline.
        stop_deadline: config.child.stop_grace + 2 * KILL_TIME,
        ..broker::Config::new(PublicUrl::parse(&root(&server.public_url))?, build)
    })
}

/// A URL without the slash at its end: paths are added to it.
fn root(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
