//! The authorization endpoint: it validates the request, asks the user for consent, and sends the
//! browser to Forgejo.
//!
//! Nothing is stored before the user consents. The form of the consent page carries the request,
//! and a keyed hash over the request and the browser's cookie proves that this page was shown in
//! this browser. A page can therefore be open in two tabs, and survives a restart. If the browser
//! remembers an approval (see `approvals`), the page is skipped unless the client asks for it with
//! `prompt`.

mod consent_page;
mod error;
mod validate;

use bytes::Bytes;
use http::{Method, Request, Response};

use super::{
    Body,
    approvals::Approvals,
    authorization_response,
    cookie::BrowserId,
    csrf,
    pages::ErrorPage,
    params::{Params, RESOURCE},
    response, sign_in,
    state::ServerState,
};
use crate::{
    config::Settings,
    records::{ClientRequest, Purpose},
};
use validate::validate;

pub(super) use error::AuthorizeError;

/// The purpose of the CSRF token in the form of the consent page.
const CONSENT: &str = "consent";

/// The field of the form with the name of the client that the page has shown.
const CLIENT_NAME: &str = "client_name";

/// The parameters of the endpoint: the client's, and those of the form.
const PARAMS: [&str; 15] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "scope",
    RESOURCE,
    "prompt",
    "request",
    "request_uri",
    "decision",
    CLIENT_NAME,
    csrf::FIELD,
];

/// `GET`: shows the consent page.
pub(super) async fn show(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, AuthorizeError> {
    let params = Params::read_query(request, &PARAMS);
    let (client, mut client_request) = validate(state, &params).await?;
    let secure = state.settings.secure;
    // A browser keeps its cookie, so that a page in another tab stays valid.
    let browser = BrowserId::from_headers(request.headers(), secure).unwrap_or_else(BrowserId::mint);
    if request.method() == Method::GET && !requires_consent_page(&params) {
        let approvals = Approvals::from_headers(request.headers(), secure);
        client_request.approved_by = approvals.approver(&state.sealer, &client_request, state.clock.now());
    }
    let response = if client_request.approved_by.is_some() {
        let begun = sign_in::begin(state, &browser, Purpose::Client(client_request)).await;
        begun.unwrap_or_else(ErrorPage::into_response)
    } else {
        consent_page::consent_page(state, &browser, &client, &client_request)
    };
    Ok(response::with_cookie(response, browser.set_cookie(secure)))
}

/// `POST`: the user consents or declines.
pub(super) async fn decide(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, AuthorizeError> {
    if !csrf::is_same_origin(&state.settings.origin, request.headers()) {
        return Err(ErrorPage::OtherSite.into());
    }
    let params = Params::read_form(request, &PARAMS).map_err(ErrorPage::from)?;
    let (client, client_request) = validate(state, &params).await?;
    let browser = BrowserId::from_headers(request.headers(), state.settings.secure).ok_or(ErrorPage::OtherBrowser)?;
    let shown = params.value(CLIENT_NAME).unwrap_or_default();
    let parts = csrf_parts(&browser, &client_request, shown);
    if !csrf::verify(&state.sealer, CONSENT, &parts, &params) {
        return Err(ErrorPage::OtherBrowser.into());
    }
    match params.value("decision") {
        // The client has renamed itself since: the user consents to what the page says, no more.
        Some("approve") if shown != consent_page::shown_name(&client) => {
            Ok(consent_page::consent_page(state, &browser, &client, &client_request))
        }
        Some("approve") => Ok(sign_in::begin(state, &browser, Purpose::Client(client_request)).await?),
        Some("deny") => {
            let issuer = state.settings.issuer();
            let error = ("access_denied", "the user declined");
            let location = authorization_response::error_location(issuer, &client_request, error);
            Ok(response::see_other(&location))
        }
        _ => Err(ErrorPage::BadRequest.into()),
    }
}

/// The address of the consent page for a request whose sign-in must start again.
pub(super) fn restart_uri(settings: &Settings, request: &ClientRequest) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(request_params(request).iter().filter(|(_, value)| !value.is_empty()));
    query.append_pair("prompt", "consent");
    format!("{}?{}", settings.endpoint("authorize"), query.finish())
}

/// The parameters of a request. An empty `state` counts as absent.
fn request_params(request: &ClientRequest) -> [(&'static str, &str); 7] {
    [
        ("response_type", "code"),
        ("client_id", &request.client_id.0),
        ("redirect_uri", &request.redirect_uri),
        ("state", request.client_state.as_deref().unwrap_or_default()),
        ("code_challenge", &request.code_challenge),
        ("code_challenge_method", "S256"),
        ("scope", &request.scope),
    ]
}

/// The parts that the CSRF token of the consent page covers.
fn csrf_parts<'a>(browser: &'a BrowserId, request: &'a ClientRequest, shown_name: &'a str) -> [&'a str; 7] {
    [
        browser.as_str(),
        shown_name,
        &request.client_id.0,
        &request.redirect_uri,
        request.client_state.as_deref().unwrap_or_default(),
        &request.code_challenge,
        &request.scope,
    ]
}

/// Returns whether the client wants the user to see the page (OpenID Connect Core section 3.1.2.1,
/// which OAuth clients use too).
fn requires_consent_page(params: &Params) -> bool {
    let prompt = params.value("prompt").unwrap_or_default();
    prompt
        .split(' ')
        .any(|prompt| matches!(prompt, "consent" | "login" | "select_account"))
}
