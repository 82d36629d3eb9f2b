//! The authorization endpoint: check the request, ask the user, send the browser to Forgejo.
//!
//! Nothing is stored until the user has said yes: the consent page carries the request in its form, and a keyed hash
//! over the request and the browser's cookie shows that this very page was shown to this very browser. So a page may
//! be opened twice and in two tabs, and survives a restart.
//!
//! Until client and redirect URI are known to belong together an error is shown here; only then is it sent to the
//! client (RFC 6749 section 4.1.2.1).

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, header};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Body, Inner,
    cookie::BrowserId,
    pages::{self, Trouble},
    params::Params,
    respond,
};
use crate::{
    pkce,
    ports::StoreError,
    records::{ClientRecord, PendingRecord},
    redirect_uri,
    seal::Sealer,
    secret,
};

/// An authorization request whose every part has been checked.
pub(super) struct AuthorizationRequest {
    pub(super) client: ClientRecord,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) code_challenge: String,
}

/// Why a request is not one.
enum Fault {
    /// Shown to the user: there is no client to tell.
    Page(Trouble),
    /// Told to the client.
    Client {
        redirect_uri: String,
        state: Option<String>,
        error: &'static str,
        description: &'static str,
    },
}

/// How long a sign-in at Forgejo may take.
const PENDING_TTL: Duration = Duration::from_secs(10 * 60);
/// How many sign-ins may be under way.
const MAX_PENDING: u32 = 10_000;
/// The longest `state` of a client, in bytes.
const MAX_STATE: usize = 4096;

/// `GET`: shows the consent page.
pub(super) async fn ask(inner: &Inner, request: &Request<Bytes>) -> Response<Body> {
    let Ok(params) = Params::of_query(request) else {
        return pages::trouble(Trouble::BadRequest);
    };
    let asked = match check(inner, &params).await {
        Ok(asked) => asked,
        Err(fault) => return fault.into_response(inner),
    };
    let secure = inner.settings.secure;
    // The cookie is kept, so that a page in another tab stays good.
    let browser = BrowserId::of(request.headers(), secure).unwrap_or_else(BrowserId::mint);
    let seal = consent_seal(&inner.accounts.sealer, &browser, &asked);
    let mut response = pages::consent(inner, &asked, &seal);
    response
        .headers_mut()
        .insert(header::SET_COOKIE, browser.set_cookie(secure));
    response
}

/// `POST`: the user has answered.
pub(super) async fn decide(inner: &Arc<Inner>, request: &Request<Bytes>) -> Response<Body> {
    let Ok(params) = Params::of_form(request) else {
        return pages::trouble(Trouble::BadRequest);
    };
    let asked = match check(inner, &params).await {
        Ok(asked) => asked,
        Err(fault) => return fault.into_response(inner),
    };
    let Some(browser) = BrowserId::of(request.headers(), inner.settings.secure) else {
        return pages::trouble(Trouble::OtherBrowser);
    };
    let expected = consent_seal(&inner.accounts.sealer, &browser, &asked);
    if !secret::same(expected.as_bytes(), params.value("csrf").unwrap_or_default().as_bytes()) {
        return pages::trouble(Trouble::OtherBrowser);
    }
    match params.value("decision") {
        Some("approve") => match begin(inner, &browser, asked).await {
            Ok(response) => response,
            Err(error) => {
                respond::log_store(&error);
                pages::trouble(Trouble::Store)
            }
        },
        Some("deny") => {
            let answer = [("error", "access_denied"), ("error_description", "the user said no")];
            to_client(inner, &asked.redirect_uri, asked.state.as_deref(), &answer)
        }
        _ => pages::trouble(Trouble::BadRequest),
    }
}

/// Sends the browser back to the client, with `state` and `iss` (RFC 9207 section 2).
pub(super) fn to_client(
    inner: &Inner,
    redirect_uri: &str,
    state: Option<&str>,
    answer: &[(&str, &str)],
) -> Response<Body> {
    respond::see_other(&client_location(inner, redirect_uri, state, answer))
}

/// Where an answer to the client goes. The redirect URI itself stays as the client wrote it.
pub(super) fn client_location(
    inner: &Inner,
    redirect_uri: &str,
    state: Option<&str>,
    answer: &[(&str, &str)],
) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(answer);
    if let Some(state) = state {
        query.append_pair("state", state);
    }
    query.append_pair("iss", &inner.settings.issuer);
    let separator = match redirect_uri.find('?') {
        None => "?",
        Some(at) if at + 1 == redirect_uri.len() || redirect_uri.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{redirect_uri}{separator}{}", query.finish())
}

/// The PKCE verifier for Forgejo. It is derived from the state, which only Forgejo and the browser have until the
/// callback, so that it need not be stored.
pub(super) fn upstream_verifier(sealer: &Sealer, state: &str) -> SecretString {
    URL_SAFE_NO_PAD
        .encode(sealer.keyed_hash("upstream verifier", &[state]))
        .into()
}

async fn check(inner: &Inner, params: &Params) -> Result<AuthorizationRequest, Fault> {
    let client_id = params.value("client_id").ok_or(Fault::Page(Trouble::BadRequest))?;
    let client = inner
        .client(client_id)
        .await
        .map_err(|error| {
            respond::log_store(&error);
            Fault::Page(Trouble::Store)
        })?
        .ok_or(Fault::Page(Trouble::UnknownClient))?;
    let redirect_uri = params
        .value("redirect_uri")
        .ok_or(Fault::Page(Trouble::BadRequest))?
        .to_owned();
    if !client
        .redirect_uris
        .iter()
        .any(|registered| redirect_uri::matches(registered, &redirect_uri))
    {
        return Err(Fault::Page(Trouble::WrongRedirect));
    }
    // From here on there is someone to tell.
    let state = params
        .value("state")
        .filter(|state| state.len() <= MAX_STATE)
        .map(str::to_owned);
    let fault = |error, description| {
        Err(Fault::Client {
            redirect_uri: redirect_uri.clone(),
            state: state.clone(),
            error,
            description,
        })
    };
    if params.value("state").is_some() && state.is_none() {
        return fault("invalid_request", "state is too long");
    }
    match params.value("response_type") {
        Some("code") => {}
        Some(_) => return fault("unsupported_response_type", "response_type must be code"),
        None => return fault("invalid_request", "response_type is missing"),
    }
    if params.value("response_mode").is_some_and(|mode| mode != "query") {
        return fault("invalid_request", "response_mode must be query");
    }
    if params.value("request").is_some() {
        return fault("request_not_supported", "request is not supported");
    }
    if params.value("request_uri").is_some() {
        return fault("request_uri_not_supported", "request_uri is not supported");
    }
    // OAuth 2.1 section 4.1.1; a missing method would mean plain (RFC 7636 section 4.3).
    if params.value("code_challenge_method") != Some("S256") {
        return fault("invalid_request", "PKCE is required, with code_challenge_method S256");
    }
    let Some(code_challenge) = params
        .value("code_challenge")
        .filter(|challenge| pkce::is_challenge(challenge))
    else {
        return fault("invalid_request", "code_challenge is not an S256 challenge");
    };
    if !inner.is_resource(params.value("resource")) {
        return fault("invalid_target", "the resource is not the one of this server");
    }
    Ok(AuthorizationRequest {
        client,
        redirect_uri,
        code_challenge: code_challenge.to_owned(),
        state,
    })
}

/// Keeps the request and sends the browser to Forgejo.
async fn begin(inner: &Inner, browser: &BrowserId, asked: AuthorizationRequest) -> Result<Response<Body>, StoreError> {
    let accounts = &inner.accounts;
    let now = accounts.clock.now();
    let state = secret::mint("");
    let state = state.expose_secret();
    let challenge = pkce::challenge(upstream_verifier(&accounts.sealer, state).expose_secret());
    let pending = PendingRecord {
        state: secret::hash(state),
        browser: secret::hash(browser.as_str()),
        client_id: asked.client.client_id,
        redirect_uri: asked.redirect_uri,
        client_state: asked.state,
        code_challenge: asked.code_challenge,
        expires_at: now + PENDING_TTL,
    };
    if !inner.store().insert_pending(pending, MAX_PENDING, now).await? {
        tracing::warn!(max = MAX_PENDING, "too many sign-ins are under way");
        return Ok(pages::trouble(Trouble::Busy));
    }
    let url = accounts
        .upstream
        .authorize_url(state, &challenge, &inner.callback_uri());
    Ok(respond::see_other(url.as_str()))
}

/// Shows that the consent page for this request was made for this browser.
fn consent_seal(sealer: &Sealer, browser: &BrowserId, asked: &AuthorizationRequest) -> String {
    let state = asked.state.as_deref().unwrap_or_default();
    let parts = [
        browser.as_str(),
        &asked.client.client_id,
        &asked.redirect_uri,
        state,
        &asked.code_challenge,
    ];
    URL_SAFE_NO_PAD.encode(sealer.keyed_hash("consent", &parts))
}

impl Fault {
    fn into_response(self, inner: &Inner) -> Response<Body> {
        match self {
            Self::Page(trouble) => pages::trouble(trouble),
            Self::Client {
                redirect_uri,
                state,
                error,
                description,
            } => {
                let answer = [("error", error), ("error_description", description)];
                to_client(inner, &redirect_uri, state.as_deref(), &answer)
            }
        }
    }
}
