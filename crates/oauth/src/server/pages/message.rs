//! Pages that consist of a title, a text, and links.

use askama::Template;
use http::{Response, StatusCode};

use super::html;
use crate::{ports::Upstream, server::Body};

#[derive(Default, Template)]
#[template(path = "message.html")]
pub(super) struct Message<'a> {
    pub(super) title: &'a str,
    pub(super) text: &'a str,
    /// A list below the text.
    pub(super) points: Vec<String>,
    /// Links below the list: address and text.
    pub(super) links: Vec<(&'a str, &'a str)>,
}

const BACK: &str = "Return to the application";

/// The page for a user who may not use this server. `login` is absent if Forgejo has locked the
/// user out. `back` leads to the application.
pub(in crate::server) fn access_denied(upstream: &str, login: Option<&str>, back: Option<&str>) -> Response<Body> {
    let text = match login {
        Some(login) => format!(
            "You signed in at {upstream} as {login}, but this account may not use this server. Ask its operator for access."
        ),
        None => format!("{upstream} has locked this account. Ask its administrator."),
    };
    let page = Message {
        title: "No access",
        text: &text,
        links: back.map(|address| (address, BACK)).into_iter().collect(),
        ..Message::default()
    };
    html(StatusCode::FORBIDDEN, &page)
}

/// The page for a user whose grant at Forgejo has another scope than this server needs.
pub(in crate::server) fn scope_mismatch(upstream: &dyn Upstream, granted: Vec<String>, retry: &str) -> Response<Body> {
    let (name, settings) = (upstream.name(), upstream.settings_url());
    let text = format!(
        "The permissions that you granted this server at {name} differ from the ones that it needs now, and {name} does \
         not change them by itself. Open your settings there, remove this server's application from the list of \
         authorized applications, and sign in again: {name} will then ask you for the new permissions. Until then your \
         other connections keep working. You have granted:"
    );
    let page = Message {
        title: "Your permission must be renewed",
        text: &text,
        points: granted,
        links: vec![
            (settings.as_str(), "Open your settings there"),
            (retry, "Sign in again afterwards"),
        ],
    };
    html(StatusCode::FORBIDDEN, &page)
}

/// The page for an invalid request of a client, with the error response behind a link: the browser
/// is not sent to an address that anyone may have registered before the user has a say (RFC 9700
/// section 4.11.2).
pub(in crate::server) fn invalid_request(description: &str, back: &str) -> Response<Body> {
    let text = format!(
        "The application that sent you here asked for something that this server does not support ({description}). Go \
         back only if you know the application."
    );
    let page = Message {
        title: "Invalid request",
        text: &text,
        links: vec![(back, BACK)],
        ..Message::default()
    };
    html(StatusCode::BAD_REQUEST, &page)
}
