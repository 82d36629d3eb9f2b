//! The pages that a user sees. They work without script, load nothing, and cannot be framed.
//!
//! Texts from outside (the client's name, its redirect URI, a login) go through the escaping of the templates.
//! `form-action` is not in the policy: browsers apply it to the redirects that follow a form, and those lead to
//! Forgejo and on to any client.

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{Body, Inner, authorize::AuthorizationRequest, respond};
use crate::redirect_uri;

/// Why a user sees a page instead of being sent on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// The request is malformed.
    BadRequest,
    /// Nobody knows the client.
    UnknownClient,
    /// The client has not registered this redirect URI.
    WrongRedirect,
    /// The page was made for another browser, or its cookie is gone.
    OtherBrowser,
    /// There is no such sign-in, or it took too long, or it was completed before.
    NoPending,
    /// Too many sign-ins are under way.
    Busy,
    /// The store cannot be used.
    Store,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct Consent<'a> {
    style: &'a str,
    client_name: &'a str,
    destination: String,
    redirect_uri: &'a str,
    upstream: &'a str,
    permissions: Vec<String>,
    action: String,
    fields: [(&'a str, &'a str); 7],
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    style: &'a str,
    title: &'a str,
    text: &'a str,
    back: Option<&'a str>,
}

const STYLE: &str = include_str!("../../templates/style.css");

/// The policy of all pages. The style is allowed by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'");
    HeaderValue::try_from(policy).expect("base64 and keywords are printable ASCII")
});

/// The page that asks the user.
pub(super) fn consent(inner: &Inner, asked: &AuthorizationRequest, seal: &str) -> Response<Body> {
    let page = Consent {
        style: STYLE,
        client_name: asked.client.name.as_deref().unwrap_or("An application without a name"),
        destination: redirect_uri::display(&asked.redirect_uri),
        redirect_uri: &asked.redirect_uri,
        upstream: inner.accounts.upstream.name(),
        permissions: inner.accounts.upstream.permissions(),
        action: format!("{}/oauth/authorize", inner.settings.issuer),
        fields: [
            ("response_type", "code"),
            ("client_id", &asked.client.client_id),
            ("redirect_uri", &asked.redirect_uri),
            ("state", asked.state.as_deref().unwrap_or_default()),
            ("code_challenge", &asked.code_challenge),
            ("code_challenge_method", "S256"),
            ("csrf", seal),
        ],
    };
    html(StatusCode::OK, &page)
}

/// The page for a user who may not use this server.
pub(super) fn not_allowed(inner: &Inner, login: &str, back: &str) -> Response<Body> {
    let text = format!(
        "You have signed in at {} as {login}, but this account may not use this server. Ask its operator for access.",
        inner.accounts.upstream.name()
    );
    html(
        StatusCode::FORBIDDEN,
        &Message {
            style: STYLE,
            title: "No access",
            text: &text,
            back: Some(back),
        },
    )
}

/// A page that says why it does not go on.
pub(super) fn trouble(trouble: Trouble) -> Response<Body> {
    use StatusCode as S;
    let (status, title, text) = match trouble {
        Trouble::BadRequest => (
            S::BAD_REQUEST,
            "This link is not complete",
            "The application has sent a request that this server cannot read. Try again from the application.",
        ),
        Trouble::UnknownClient => (
            S::BAD_REQUEST,
            "Unknown application",
            "This server does not know the application that sent you here. Remove the connection in the application \
             and add it again, so that it registers anew.",
        ),
        Trouble::WrongRedirect => (
            S::BAD_REQUEST,
            "Wrong address to return to",
            "The application wants the answer at an address that it has not registered. For your safety you are not \
             sent there.",
        ),
        Trouble::OtherBrowser => (
            S::FORBIDDEN,
            "This page belongs to another browser",
            "The sign-in was begun in another browser, or this one has no cookie of it. Begin again from the \
             application, in one browser that accepts cookies.",
        ),
        Trouble::NoPending => (
            S::BAD_REQUEST,
            "This sign-in is over",
            "It has been completed before, or it took longer than ten minutes. Begin again from the application.",
        ),
        Trouble::Busy => (
            S::SERVICE_UNAVAILABLE,
            "Too many sign-ins",
            "Too many sign-ins are under way. Try again in a few minutes.",
        ),
        Trouble::Store => (
            S::SERVICE_UNAVAILABLE,
            "Not available now",
            "This server is in trouble. Try again in a moment.",
        ),
    };
    let mut response = html(
        status,
        &Message {
            style: STYLE,
            title,
            text,
            back: None,
        },
    );
    if status == S::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

fn html(status: StatusCode, page: &impl Template) -> Response<Body> {
    let Ok(text) = page.render() else {
        return respond::plain(StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be made.\n");
    };
    let mut response = respond::with_type(status, "text/html; charset=utf-8", text.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // `no-referrer` would make browsers send `Origin: null` with the form.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
