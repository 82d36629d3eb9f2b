//! The page of a user's connections, and the page that asks the user to sign in for it.

use askama::Template;

use super::date::Date;
use crate::ids::GrantId;

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

/// The page for a browser without a session.
#[derive(Template)]
#[template(path = "connections_sign_in.html")]
pub(super) struct SignInPage<'a> {
    pub(super) upstream: &'a str,
    pub(super) action: String,
    pub(super) csrf: &'a str,
}

/// The page for a user.
#[derive(Template)]
#[template(path = "connections.html")]
pub(super) struct ConnectionsPage<'a> {
    pub(super) upstream: &'a str,
    pub(super) settings: String,
    pub(super) login: &'a str,
    pub(super) action: String,
    pub(super) csrf: &'a str,
    /// The user has just ended a grant.
    pub(super) ended: bool,
    pub(super) rows: Vec<Connection>,
}
