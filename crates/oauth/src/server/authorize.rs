//! The authorization endpoint: it validates the request, asks the user for consent, and sends the browser to Forgejo.
//!
//! Nothing is stored before the user consents. The form of the consent page carries the request, and a keyed hash over the
//! request and the browser's cookie proves that this page was shown in this browser. A page can therefore be open in two
//! tabs, and survives a restart. If the browser remembers an approval (see `approvals`), the page is skipped unless the
//! client asks for it with `prompt`.

mod consent_page;
mod error;
mod request;

use bytes::Bytes;
use http::{Method, Request, Response};

use super::{
    Body, approvals::Approvals, authorization_response, cookie::BrowserId, csrf, pages::ErrorPage, params::Params,
    response, sign_in, state::ServerState,
};
use crate::{config::Settings, records::ClientRequest};
use error::AuthorizeError;
use request::AuthorizationRequest;

/// The purpose of the CSRF token in the form of the consent page.
const CONSENT: &str = "consent";

/// `GET`: shows the consent page.
pub(super) async fn show(state: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    let response = try_show(state, request).await;
    response.unwrap_or_else(AuthorizeError::into_response)
}

/// `POST`: the user consents or declines.
pub(super) async fn decide(state: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    let response = try_decide(state, request).await;
    response.unwrap_or_else(AuthorizeError::into_response)
}

async fn try_show(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, AuthorizeError> {
    let params = Params::from_query(request)?;
    let authorization = AuthorizationRequest::validate(state, &params).await?;
    let secure = state.settings.secure;
    // A browser keeps its cookie, so that a page in another tab stays valid.
    let browser = BrowserId::from_headers(request.headers(), secure).unwrap_or_else(BrowserId::mint);
    let approver = if request.method() == Method::GET && !requires_consent_page(&params) {
        let approvals = Approvals::from_headers(request.headers(), secure);
        approvals.approver(&state.sealer, authorization.to_approve(), state.clock.now())
    } else {
        None
    };
    let response = match approver {
        Some(user) => {
            let begun = sign_in::begin(state, &browser, authorization.into_purpose(Some(user))).await;
            begun.unwrap_or_else(ErrorPage::into_response)
        }
        None => {
            let csrf = csrf::token(&state.sealer, CONSENT, &authorization.csrf_parts(&browser));
            consent_page::consent_page(&*state.upstream, &state.settings, &authorization, &csrf)
        }
    };
    Ok(response::with_cookie(response, browser.set_cookie(secure)))
}

async fn try_decide(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, AuthorizeError> {
    if !csrf::is_same_origin(&state.settings.origin, request.headers()) {
        return Err(ErrorPage::OtherSite.into());
    }
    let params = Params::from_form(request)?;
    let authorization = AuthorizationRequest::validate(state, &params).await?;
    let browser = BrowserId::from_headers(request.headers(), state.settings.secure).ok_or(ErrorPage::OtherBrowser)?;
    if !csrf::verify(&state.sealer, CONSENT, &authorization.csrf_parts(&browser), &params) {
        return Err(ErrorPage::OtherBrowser.into());
    }
    match params.value("decision") {
        Some("approve") => Ok(sign_in::begin(state, &browser, authorization.into_purpose(None)).await?),
        Some("deny") => Ok(response::see_other(&authorization_response::error_location(
            state.settings.issuer(),
            &authorization.redirect_uri,
            authorization.state.as_deref(),
            "access_denied",
            "the user declined",
        ))),
        _ => Err(ErrorPage::BadRequest.into()),
    }
}

/// The address of the consent page for a request whose sign-in must start again.
pub(super) fn restart_uri(settings: &Settings, request: &ClientRequest) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("response_type", "code"),
        ("client_id", &request.client_id.0),
        ("redirect_uri", &request.redirect_uri),
        ("code_challenge", &request.code_challenge),
        ("code_challenge_method", "S256"),
        ("scope", &request.scope),
        ("prompt", "consent"),
    ]);
    query.extend_pairs(request.client_state.as_ref().map(|state| ("state", state)));
    format!("{}?{}", settings.endpoint("authorize"), query.finish())
}

/// Whether the client wants the user to see the page (OpenID Connect Core section 3.1.2.1, which OAuth clients use too).
fn requires_consent_page(params: &Params) -> bool {
    let prompt = params.value("prompt").unwrap_or_default();
    prompt
        .split(' ')
        .any(|prompt| matches!(prompt, "consent" | "login" | "select_account"))
}
