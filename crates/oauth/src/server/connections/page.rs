//! The page of a user's connections, and the page that asks the user to sign in for it.

use askama::Template;
use http::{Response, StatusCode};

use super::date::Date;
use crate::{
    ids::GrantId,
    ports::Upstream,
    server::{
        Body,
        pages::{self, STYLE},
    },
};

/// A grant, as the page shows it.
pub(super) struct Connection {
    pub(super) grant: GrantId,
    /// The name that the client states.
    pub(super) name: String,
    /// The host that vouches for the client.
    pub(super) domain: Option<String>,
    pub(super) granted: Date,
    pub(super) used: Date,
    /// The number of live sessions.
    pub(super) sessions: usize,
}

#[derive(Template)]
#[template(path = "connections_sign_in.html")]
struct SignInPage<'a> {
    style: &'a str,
    upstream: &'a str,
    action: String,
    csrf: &'a str,
}

#[derive(Template)]
#[template(path = "connections.html")]
struct ConnectionsPage<'a> {
    style: &'a str,
    upstream: &'a str,
    settings: String,
    login: &'a str,
    action: String,
    csrf: &'a str,
    /// The user has just ended a grant.
    ended: bool,
    rows: Vec<Connection>,
}

/// The page for a browser without a session.
pub(super) fn sign_in_page(upstream: &dyn Upstream, action: String, csrf: &str) -> Response<Body> {
    let page = SignInPage {
        style: STYLE,
        upstream: upstream.name(),
        action,
        csrf,
    };
    pages::html(StatusCode::OK, &page)
}

/// The page for a user.
pub(super) fn connections_page(
    upstream: &dyn Upstream,
    action: String,
    login: &str,
    csrf: &str,
    ended: bool,
    rows: Vec<Connection>,
) -> Response<Body> {
    let page = ConnectionsPage {
        style: STYLE,
        upstream: upstream.name(),
        settings: upstream.settings_url().into(),
        login,
        action,
        csrf,
        ended,
        rows,
    };
    pages::html(StatusCode::OK, &page)
}
