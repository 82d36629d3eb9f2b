//! The page of a user's connections, and the one that asks them to sign in for it.

use std::time::SystemTime;

use askama::Template;
use http::{Response, StatusCode};

use super::{STYLE, dates::Date, html};
use crate::server::{Body, ServerState};

/// One grant as the page shows it.
pub(in crate::server) struct Connection {
    /// The name of the grant.
    pub(in crate::server) grant: String,
    /// What the client calls itself.
    pub(in crate::server) name: String,
    /// Who vouches for it.
    pub(in crate::server) domain: Option<String>,
    pub(in crate::server) created_at: SystemTime,
    pub(in crate::server) last_used_at: SystemTime,
    /// How many sessions live on it.
    pub(in crate::server) sessions: usize,
}

#[derive(Template)]
#[template(path = "connect.html")]
struct Connect<'a> {
    style: &'a str,
    upstream: &'a str,
    action: String,
    csrf: &'a str,
}

#[derive(Template)]
#[template(path = "connections.html")]
struct Connections<'a> {
    style: &'a str,
    upstream: &'a str,
    settings: String,
    login: &'a str,
    action: String,
    csrf: &'a str,
    /// Whether the user has just ended one.
    ended: bool,
    rows: Vec<Row>,
}

struct Row {
    grant: String,
    name: String,
    domain: Option<String>,
    granted: Date,
    used: Date,
    sessions: usize,
}

/// The page for somebody whom nobody knows yet.
pub(in crate::server) fn connect(inner: &ServerState, csrf: &str) -> Response<Body> {
    let page = Connect {
        style: STYLE,
        upstream: inner.upstream.name(),
        action: inner.connections_uri(),
        csrf,
    };
    html(StatusCode::OK, &page)
}

/// The page for a user.
pub(in crate::server) fn connections(
    inner: &ServerState,
    login: &str,
    csrf: &str,
    ended: bool,
    connections: Vec<Connection>,
) -> Response<Body> {
    let page = Connections {
        style: STYLE,
        upstream: inner.upstream.name(),
        settings: inner.upstream.settings_url().into(),
        login,
        action: inner.connections_uri(),
        csrf,
        ended,
        rows: connections.into_iter().map(Row::from).collect(),
    };
    html(StatusCode::OK, &page)
}

impl From<Connection> for Row {
    fn from(connection: Connection) -> Self {
        Self {
            grant: connection.grant,
            name: connection.name,
            domain: connection.domain,
            granted: connection.created_at.into(),
            used: connection.last_used_at.into(),
            sessions: connection.sessions,
        }
    }
}
