//! The authorization endpoint: check the request, ask the user, send the browser to Forgejo.
//!
//! Nothing is stored until the user has said yes: the consent page carries the request in its form, and a keyed hash
//! over the request and the browser's cookie shows that this very page was shown to this very browser. So a page may
//! be opened twice and in two tabs, and survives a restart. Where this browser remembers an approval (see
//! `approvals`) the question is left out, unless the client asks for it with `prompt`.
//!
//! Until client and redirect URI are known to belong together an error is shown here; only then is it sent to the
//! client (RFC 6749 section 4.1.2.1). Anyone can register a client: to an address that is neither of this device nor in
//! the configuration an error leads by a link, so that this server sends nobody there by itself before the user has
//! said anything (RFC 9700 section 4.11.2).

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use url::Url;

use super::{
    Body, ServerState,
    approvals::{Approvals, Subject},
    client_lookup::LookupError,
    cookie::BrowserId,
    pages::{self, ErrorPage},
    params::Params,
    response, same_origin, scope, sign_in,
};
use crate::{
    ids::{ClientId, UserId},
    pkce,
    records::{ClientRecord, ClientRequest, Purpose},
    redirect_uri,
};

/// An authorization request whose every part has been checked.
pub(super) struct AuthorizationRequest {
    pub(super) client: ClientRecord,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) code_challenge: String,
    pub(super) scope: &'static str,
}

/// Why a request is not one.
enum AuthorizeError {
    /// Shown to the user: there is no client to tell.
    Page(ErrorPage),
    /// Told to the client.
    Client {
        /// Whether the browser may be sent there before the user has said anything.
        at_once: bool,
        redirect_uri: String,
        state: Option<String>,
        error: &'static str,
        description: &'static str,
    },
}

/// The purpose of the keyed hash in the form of the consent page.
const CONSENT: &str = "consent";
/// The longest `state` of a client, in bytes.
const MAX_STATE: usize = 4096;

/// `GET`: shows the consent page.
pub(super) async fn ask(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    let Ok(params) = Params::of_query(request) else {
        return pages::error(ErrorPage::BadRequest);
    };
    let asked = match check(inner, &params).await {
        Ok(asked) => asked,
        Err(fault) => return fault.into_response(inner),
    };
    let secure = inner.settings.secure;
    // The cookie is kept, so that a page in another tab stays good.
    let browser = BrowserId::of(request.headers(), secure).unwrap_or_else(BrowserId::mint);
    let approver = if request.method() == Method::GET && !wants_to_be_asked(&params) {
        Approvals::of(request.headers(), secure).approver(&inner.sealer, asked.subject(), inner.clock.now())
    } else {
        None
    };
    let mut response = match approver {
        Some(user) => sign_in::begin(inner, &browser, asked.into_purpose(Some(user))).await,
        None => pages::consent(inner, &asked, &consent_seal(inner, &browser, &asked)),
    };
    if let Some(cookie) = browser.set_cookie(secure) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// `POST`: the user has answered.
pub(super) async fn decide(inner: &Arc<ServerState>, request: &Request<Bytes>) -> Response<Body> {
    if !same_origin::is_own_form(inner, request.headers()) {
        return pages::error(ErrorPage::OtherSite);
    }
    let Ok(params) = Params::of_form(request) else {
        return pages::error(ErrorPage::BadRequest);
    };
    let asked = match check(inner, &params).await {
        Ok(asked) => asked,
        Err(fault) => return fault.into_response(inner),
    };
    let Some(browser) = BrowserId::of(request.headers(), inner.settings.secure) else {
        return pages::error(ErrorPage::OtherBrowser);
    };
    let seal = URL_SAFE_NO_PAD.decode(params.value("csrf").unwrap_or_default());
    if !seal.is_ok_and(|seal| is_sealed(inner, &browser, &asked, &seal)) {
        return pages::error(ErrorPage::OtherBrowser);
    }
    match params.value("decision") {
        Some("approve") => sign_in::begin(inner, &browser, asked.into_purpose(None)).await,
        Some("deny") => {
            let answer = [("error", "access_denied"), ("error_description", "the user said no")];
            to_client(inner, &asked.redirect_uri, asked.state.as_deref(), &answer)
        }
        _ => pages::error(ErrorPage::BadRequest),
    }
}

/// The address of the consent page for a request whose sign-in has to begin again.
pub(super) fn page_uri(inner: &ServerState, request: &ClientRequest) -> String {
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
    if let Some(state) = &request.client_state {
        query.append_pair("state", state);
    }
    format!("{}/oauth/authorize?{}", inner.settings.issuer, query.finish())
}

/// Sends the browser back to the client, with `state` and `iss` (RFC 9207 section 2).
pub(super) fn to_client(
    inner: &ServerState,
    redirect_uri: &str,
    state: Option<&str>,
    answer: &[(&str, &str)],
) -> Response<Body> {
    response::see_other(&client_location(inner, redirect_uri, state, answer))
}

/// Where an answer to the client goes. The redirect URI itself stays as the client wrote it.
pub(super) fn client_location(
    inner: &ServerState,
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

/// Whether the client wants the user to see the page (OpenID Connect Core section 3.1.2.1, which other clients have
/// taken over).
fn wants_to_be_asked(params: &Params) -> bool {
    let prompt = params.value("prompt").unwrap_or_default();
    prompt
        .split(' ')
        .any(|prompt| matches!(prompt, "consent" | "login" | "select_account"))
}

async fn check(inner: &ServerState, params: &Params) -> Result<AuthorizationRequest, AuthorizeError> {
    let client_id = params
        .value("client_id")
        .ok_or(AuthorizeError::Page(ErrorPage::BadRequest))?;
    let client_id = ClientId(client_id.to_owned());
    let client = inner
        .client(&client_id)
        .await
        .map_err(|error| match error {
            LookupError::Store(error) => {
                response::log_store(&error);
                AuthorizeError::Page(ErrorPage::Store)
            }
            // Client ID metadata document draft, section 4.3.
            LookupError::Unreachable(_) => AuthorizeError::Page(ErrorPage::ClientAway),
        })?
        .ok_or(AuthorizeError::Page(ErrorPage::UnknownClient))?;
    let redirect_uri = params
        .value("redirect_uri")
        .ok_or(AuthorizeError::Page(ErrorPage::BadRequest))?
        .to_owned();
    if !client
        .redirect_uris
        .iter()
        .any(|registered| redirect_uri::matches(registered, &redirect_uri))
    {
        return Err(AuthorizeError::Page(ErrorPage::WrongRedirect));
    }
    // From here on there is someone to tell.
    let state = params
        .value("state")
        .filter(|state| state.len() <= MAX_STATE)
        .map(str::to_owned);
    let at_once = inner
        .settings
        .clients
        .iter()
        .any(|client| client.client_id == client_id)
        || Url::parse(&redirect_uri).is_ok_and(|url| redirect_uri::is_loopback(&url));
    let fault = |error, description| {
        Err(AuthorizeError::Client {
            at_once,
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
    let Ok(scope) = scope::of_request(params.value("scope")) else {
        return fault("invalid_scope", "scope is not a list of scopes");
    };
    Ok(AuthorizationRequest {
        client,
        redirect_uri,
        code_challenge: code_challenge.to_owned(),
        scope,
        state,
    })
}

/// Shows that the consent page for this request was made for this browser.
fn consent_seal(inner: &ServerState, browser: &BrowserId, asked: &AuthorizationRequest) -> [u8; 32] {
    inner.sealer.keyed_hash(CONSENT, &asked.sealed_parts(browser))
}

fn is_sealed(inner: &ServerState, browser: &BrowserId, asked: &AuthorizationRequest, seal: &[u8]) -> bool {
    inner.sealer.verifies(CONSENT, &asked.sealed_parts(browser), seal)
}

impl AuthorizationRequest {
    fn subject(&self) -> Subject<'_> {
        Subject {
            client_id: &self.client.client_id.0,
            redirect_uri: &self.redirect_uri,
            scope: self.scope,
        }
    }

    fn sealed_parts<'a>(&'a self, browser: &'a BrowserId) -> [&'a str; 6] {
        [
            browser.as_str(),
            &self.client.client_id.0,
            &self.redirect_uri,
            self.state.as_deref().unwrap_or_default(),
            &self.code_challenge,
            self.scope,
        ]
    }

    fn into_purpose(self, approved_by: Option<UserId>) -> Purpose {
        Purpose::Client(ClientRequest {
            client_id: self.client.client_id,
            redirect_uri: self.redirect_uri,
            client_state: self.state,
            code_challenge: self.code_challenge,
            scope: self.scope.to_owned(),
            approved_by,
        })
    }
}

impl AuthorizeError {
    fn into_response(self, inner: &ServerState) -> Response<Body> {
        match self {
            Self::Page(trouble) => pages::error(trouble),
            Self::Client {
                at_once,
                redirect_uri,
                state,
                error,
                description,
            } => {
                let answer = [("error", error), ("error_description", description)];
                let location = client_location(inner, &redirect_uri, state.as_deref(), &answer);
                if at_once {
                    response::see_other(&location)
                } else {
                    pages::fault(description, &location)
                }
            }
        }
    }
}
