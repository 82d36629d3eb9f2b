//! Pages that consist of a title, a text, and links.

use askama::Template;
use http::{Response, StatusCode};

use super::{STYLE, html};
use crate::{ports::Upstream, server::Body};

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    style: &'a str,
    title: &'a str,
    text: &'a str,
    /// A list below the text.
    points: Vec<String>,
    /// Links below the list: address and text.
    links: Vec<(&'a str, &'a str)>,
}

/// A page with a title and a text.
pub(super) fn message(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    page(status, title, text, Vec::new(), Vec::new())
}

/// The page for a user who may not use this server. `login` is absent if Forgejo has locked the
/// user out. `back` leads to the application.
pub(in crate::server) fn access_denied(upstream: &str, login: Option<&str>, back: Option<&str>) -> Response<Body> {
    let text = match login {
        Some(login) => format!(
            "You signed in at {upstream} as {login}, but this account may not use this server. Ask its operator for access."
        ),
        None => format!("{upstream} has locked this account. Ask its administrator."),
    };
    page(StatusCode::FORBIDDEN, "No access", &text, Vec::new(), back_links(back))
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
    let links = vec![
        (settings.as_str(), "Open your settings there"),
        (retry, "Sign in again afterwards"),
    ];
    page(
        StatusCode::FORBIDDEN,
        "Your permission must be renewed",
        &text,
        granted,
        links,
    )
}

/// The page for an invalid request of a client, with the error response behind a link: the browser
/// is not sent to an address that anyone may have registered before the user has a say (RFC 9700
/// section 4.11.2).
pub(in crate::server) fn invalid_request(description: &str, back: &str) -> Response<Body> {
    let text = format!(
        "The application that sent you here asked for something that this server does not support ({description}). Go \
         back only if you know the application."
    );
    let links = back_links(Some(back));
    page(StatusCode::BAD_REQUEST, "Invalid request", &text, Vec::new(), links)
}

fn back_links(back: Option<&str>) -> Vec<(&str, &str)> {
    back.map(|address| (address, "Return to the application"))
        .into_iter()
        .collect()
}

fn page(status: StatusCode, title: &str, text: &str, points: Vec<String>, links: Vec<(&str, &str)>) -> Response<Body> {
    let message = Message {
        style: STYLE,
        title,
        text,
        points,
        links,
    };
    html(status, &message)
}
