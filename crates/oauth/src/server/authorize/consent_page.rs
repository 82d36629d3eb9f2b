//! The page that asks the user for consent.

use askama::Template;
use http::{Response, StatusCode};

use super::request_params;
use crate::{
    records::{ClientRecord, ClientRequest},
    redirect_uri,
    server::{
        Body,
        pages::{self, UNNAMED_CLIENT},
        state::ServerState,
    },
};

#[derive(Template)]
#[template(path = "consent.html")]
struct Consent<'a> {
    client_name: &'a str,
    domain: Option<&'a str>,
    /// The redirect URI leads to a program on the user's device.
    local: bool,
    destination: String,
    redirect_uri: &'a str,
    upstream: &'a str,
    permissions: Vec<String>,
    action: String,
    connections: String,
    fields: [(&'a str, &'a str); 7],
    csrf: &'a str,
}

/// The page for a request. `csrf` proves that it was made for the browser.
pub(super) fn consent_page(
    state: &ServerState,
    client: &ClientRecord,
    request: &ClientRequest,
    csrf: &str,
) -> Response<Body> {
    let (settings, upstream) = (&state.settings, &*state.upstream);
    let page = Consent {
        client_name: client.name.as_deref().unwrap_or(UNNAMED_CLIENT),
        domain: client.domain.as_deref(),
        local: redirect_uri::is_local(&request.redirect_uri),
        destination: redirect_uri::display(&request.redirect_uri),
        redirect_uri: &request.redirect_uri,
        upstream: upstream.name(),
        permissions: upstream.permissions(),
        action: settings.endpoint("authorize"),
        connections: settings.endpoint("connections"),
        fields: request_params(request),
        csrf,
    };
    pages::html(StatusCode::OK, &page)
}
