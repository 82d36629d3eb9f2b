//! The page that asks the user.

use askama::Template;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use url::Url;

use super::{STYLE, html};
use crate::{
    redirect_uri,
    server::{Body, ServerState, authorize::AuthorizationRequest},
};

#[derive(Template)]
#[template(path = "consent.html")]
struct Consent<'a> {
    style: &'a str,
    client_name: &'a str,
    domain: Option<&'a str>,
    /// Whether the answer goes to this device.
    local: bool,
    destination: String,
    redirect_uri: &'a str,
    upstream: &'a str,
    permissions: Vec<String>,
    action: String,
    connections: String,
    fields: [(&'a str, &'a str); 8],
}

/// The page for a request. `seal` shows that it was made for the browser.
pub(in crate::server) fn consent(inner: &ServerState, asked: &AuthorizationRequest, seal: &[u8]) -> Response<Body> {
    let seal = URL_SAFE_NO_PAD.encode(seal);
    let page = Consent {
        style: STYLE,
        client_name: asked.client.name.as_deref().unwrap_or("An application without a name"),
        domain: asked.client.domain.as_deref(),
        local: is_local(&asked.redirect_uri),
        destination: redirect_uri::display(&asked.redirect_uri),
        redirect_uri: &asked.redirect_uri,
        upstream: inner.upstream.name(),
        permissions: inner.upstream.permissions(),
        action: format!("{}/oauth/authorize", inner.settings.issuer),
        connections: inner.connections_uri(),
        fields: [
            ("response_type", "code"),
            ("client_id", &asked.client.client_id.0),
            ("redirect_uri", &asked.redirect_uri),
            ("state", asked.state.as_deref().unwrap_or_default()),
            ("code_challenge", &asked.code_challenge),
            ("code_challenge_method", "S256"),
            ("scope", asked.scope),
            ("csrf", &seal),
        ],
    };
    html(StatusCode::OK, &page)
}

/// Whether a redirect URI leads to a program on the user's device (RFC 8252 section 8.6).
fn is_local(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| !matches!(url.scheme(), "http" | "https") || redirect_uri::is_loopback(&url))
}
