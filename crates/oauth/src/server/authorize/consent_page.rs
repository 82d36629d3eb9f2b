//! The page that asks the user for consent.

use askama::Template;
use http::{Response, StatusCode};

use super::request::AuthorizationRequest;
use crate::{
    config::Settings,
    ports::Upstream,
    redirect_uri,
    server::{
        Body,
        pages::{self, STYLE, UNNAMED_CLIENT},
    },
};

#[derive(Template)]
#[template(path = "consent.html")]
struct Consent<'a> {
    style: &'a str,
    client_name: &'a str,
    domain: Option<&'a str>,
    /// Whether the redirect URI leads to a program on the user's device.
    local: bool,
    destination: String,
    redirect_uri: &'a str,
    upstream: &'a str,
    permissions: Vec<String>,
    action: String,
    connections: String,
    fields: [(&'a str, &'a str); 8],
}

/// The page for a request. `csrf` proves that it was made for the browser.
pub(super) fn consent_page(
    upstream: &dyn Upstream,
    settings: &Settings,
    request: &AuthorizationRequest,
    csrf: &str,
) -> Response<Body> {
    let page = Consent {
        style: STYLE,
        client_name: request.client.name.as_deref().unwrap_or(UNNAMED_CLIENT),
        domain: request.client.domain.as_deref(),
        local: redirect_uri::is_local(&request.redirect_uri),
        destination: redirect_uri::display(&request.redirect_uri),
        redirect_uri: &request.redirect_uri,
        upstream: upstream.name(),
        permissions: upstream.permissions(),
        action: settings.endpoint("authorize"),
        connections: settings.endpoint("connections"),
        fields: [
            ("response_type", "code"),
            ("client_id", &request.client.client_id.0),
            ("redirect_uri", &request.redirect_uri),
            ("state", request.state.as_deref().unwrap_or_default()),
            ("code_challenge", &request.code_challenge),
            ("code_challenge_method", "S256"),
            ("scope", request.scope),
            ("csrf", csrf),
        ],
    };
    pages::html(StatusCode::OK, &page)
}
