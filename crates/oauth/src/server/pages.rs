//! The pages that a user sees. They work without script, load nothing, and cannot be framed.
//!
//! Texts from outside (the client's name, its redirect URI, a login) go through the escaping of the templates.
//! `form-action` is not in the policy: browsers apply it to the redirects that follow a form, and those lead to
//! Forgejo and on to any client.

mod connections;
mod consent;
mod dates;

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{Body, ServerState, response};

pub(super) use connections::{Connection, connect, connections};
pub(super) use consent::consent;

/// Why a user sees a page instead of being sent on.
#[derive(Clone, Copy, Debug)]
pub(super) enum ErrorPage {
    /// The request is malformed.
    BadRequest,
    /// Nobody knows the client.
    UnknownClient,
    /// The client has not registered this redirect URI.
    WrongRedirect,
    /// The page was made for another browser, or its cookie is gone.
    OtherBrowser,
    /// The form was sent from a page of another site.
    OtherSite,
    /// The page was made before the user signed in or out.
    OldPage,
    /// There is no such sign-in, or it took too long, or it was completed before.
    NoPending,
    /// Too many sign-ins are under way.
    Busy,
    /// What the client publishes of itself cannot be read now.
    ClientAway,
    /// The store cannot be used.
    Store,
    /// Forgejo cannot be asked now.
    UpstreamAway,
    /// Forgejo refused the sign-in, or the user said no there.
    UpstreamRefused,
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    style: &'a str,
    title: &'a str,
    text: &'a str,
    /// A list below the text.
    points: Vec<String>,
    /// Where to go on: address and words.
    links: Vec<(&'a str, &'a str)>,
}

const STYLE: &str = include_str!("../../templates/style.css");

/// The policy of all pages. The style is allowed by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'");
    HeaderValue::try_from(policy).expect("base64 and keywords are printable ASCII")
});

/// The page for a user who may not use this server: whose login is known, unless Forgejo has locked them out. `back`
/// leads to the application that they came from.
pub(super) fn not_allowed(inner: &ServerState, login: Option<&str>, back: Option<&str>) -> Response<Body> {
    let upstream = inner.upstream.name();
    let text = match login {
        Some(login) => format!(
            "You have signed in at {upstream} as {login}, but this account may not use this server. Ask its operator for \
             access."
        ),
        None => format!("{upstream} has locked this account out. Ask its administrator."),
    };
    message(StatusCode::FORBIDDEN, "No access", &text, Vec::new(), back_link(back))
}

/// The page for a user whose grant at Forgejo does not allow what this server asks for, or allows more.
pub(super) fn other_scope(inner: &ServerState, granted: Vec<String>, again: &str) -> Response<Body> {
    let upstream = &inner.upstream;
    let (name, settings) = (upstream.name(), upstream.settings_url());
    let text = format!(
        "At some time you have granted this server something else at {name} than what it needs now, and {name} does not \
         change that by itself. Open your settings there, remove this server's application from the list of authorised \
         applications, and sign in again: {name} will then ask you anew. Until then your other connections go on as \
         before. What you have granted:"
    );
    let links = vec![
        (settings.as_str(), "Open your settings there"),
        (again, "Sign in again, once that is done"),
    ];
    message(
        StatusCode::FORBIDDEN,
        "Your permission has to be renewed",
        &text,
        granted,
        links,
    )
}

/// The page for a request that is at fault, with the answer to the client behind a link: the browser is not sent to an
/// address that anyone may have registered before the user has had a say (RFC 9700 section 4.11.2).
pub(super) fn fault(description: &str, back: &str) -> Response<Body> {
    let text = format!(
        "The application that sent you here has asked for something that this server cannot do ({description}). Go back \
         only if you know the application."
    );
    message(
        StatusCode::BAD_REQUEST,
        "This request is not right",
        &text,
        Vec::new(),
        back_link(Some(back)),
    )
}

/// A page that says why it does not go on.
pub(super) fn error(page: ErrorPage) -> Response<Body> {
    use StatusCode as S;
    let (status, title, text) = match page {
        ErrorPage::BadRequest => (
            S::BAD_REQUEST,
            "This link is not complete",
            "The application has sent a request that this server cannot read. Try again from the application.",
        ),
        ErrorPage::UnknownClient => (
            S::BAD_REQUEST,
            "Unknown application",
            "This server does not know the application that sent you here. Remove the connection in the application \
             and add it again, so that it registers anew.",
        ),
        ErrorPage::WrongRedirect => (
            S::BAD_REQUEST,
            "Unknown return address",
            "The application wants you sent back to an address that it has not registered. For your safety you are not \
             sent there. If you know the application, remove the connection in it and add it again.",
        ),
        ErrorPage::OtherBrowser => (
            S::FORBIDDEN,
            "This page belongs to another browser",
            "The sign-in was begun in another browser, or this one has no cookie of it. Begin again from the \
             application, in one browser that accepts cookies.",
        ),
        ErrorPage::OtherSite => (
            S::FORBIDDEN,
            "This came from another site",
            "Another site has tried to answer in your name. Nothing has happened. Begin again from the application.",
        ),
        ErrorPage::OldPage => (
            S::FORBIDDEN,
            "This page is out of date",
            "You have signed in or out since it was made, or it belongs to another browser. Load it again.",
        ),
        ErrorPage::NoPending => (
            S::BAD_REQUEST,
            "This sign-in is over",
            "It has been completed before, or it took longer than ten minutes. Begin again from the application.",
        ),
        ErrorPage::Busy => (
            S::SERVICE_UNAVAILABLE,
            "Too many sign-ins",
            "Too many sign-ins are under way. Try again in a few minutes.",
        ),
        ErrorPage::ClientAway => (
            S::SERVICE_UNAVAILABLE,
            "The application cannot be looked up",
            "The application publishes a description of itself, which cannot be read now. Try again in a moment.",
        ),
        ErrorPage::Store => (
            S::SERVICE_UNAVAILABLE,
            "Not available now",
            "This server is in trouble. Try again in a moment.",
        ),
        ErrorPage::UpstreamAway => (
            S::SERVICE_UNAVAILABLE,
            "Not available now",
            "Forgejo cannot be asked now. Try again in a moment.",
        ),
        ErrorPage::UpstreamRefused => (
            S::FORBIDDEN,
            "You are not signed in",
            "Forgejo has not let you in, or you have said no there.",
        ),
    };
    let mut response = message(status, title, text, Vec::new(), Vec::new());
    if status == S::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

fn back_link(back: Option<&str>) -> Vec<(&str, &str)> {
    back.into_iter()
        .map(|address| (address, "Return to the application"))
        .collect()
}

fn message(
    status: StatusCode,
    title: &str,
    text: &str,
    points: Vec<String>,
    links: Vec<(&str, &str)>,
) -> Response<Body> {
    html(
        status,
        &Message {
            style: STYLE,
            title,
            text,
            points,
            links,
        },
    )
}

fn html(status: StatusCode, page: &impl Template) -> Response<Body> {
    let Ok(text) = page.render() else {
        return response::plain(StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be made.\n");
    };
    let mut response = response::with_type(status, "text/html; charset=utf-8", text.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // `no-referrer` would make browsers send `Origin: null` with the form.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
