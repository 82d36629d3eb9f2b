//! The page that asks the user for consent.

use askama::Template;
use http::{Response, StatusCode};

use super::{CONSENT, csrf_parts, request_params};
use crate::{
    records::{ClientRecord, ClientRequest},
    redirect_uri,
    server::{
        Body,
        cookie::BrowserId,
        csrf,
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

/// The name of a client on the page.
pub(super) fn shown_name(client: &ClientRecord) -> &str {
    client.name.as_deref().unwrap_or(UNNAMED_CLIENT)
}

/// The page for a request in a browser.
pub(super) fn consent_page(
    state: &ServerState,
    browser: &BrowserId,
    client: &ClientRecord,
    request: &ClientRequest,
) -> Response<Body> {
    let (settings, upstream) = (&state.settings, &*state.upstream);
    let client_name = shown_name(client);
    let csrf = csrf::token(&state.sealer, CONSENT, &csrf_parts(browser, request, client_name));
    let page = Consent {
        client_name,
        domain: client.domain.as_deref(),
        local: redirect_uri::is_local(&request.redirect_uri),
        destination: redirect_uri::display(&request.redirect_uri),
        redirect_uri: &request.redirect_uri,
        upstream: upstream.name(),
        permissions: upstream.permissions(),
        action: settings.endpoint("authorize"),
        connections: settings.endpoint("connections"),
        fields: request_params(request),
        csrf: &csrf,
    };
    pages::html(StatusCode::OK, &page)
}
