//! The validation of an authorization request, one function per rule.

use url::Url;

use super::error::AuthorizeError;
use crate::{
    config::Settings,
    ids::{ClientId, UserId},
    pkce,
    records::{ClientRecord, ClientRequest, Purpose},
    redirect_uri,
    server::{
        approvals::ApprovedRequest,
        authorization_response, client_lookup,
        cookie::BrowserId,
        pages::ErrorPage,
        params::Params,
        scope::{self, InvalidScopeError},
        state::ServerState,
    },
};

/// A valid authorization request.
pub(super) struct AuthorizationRequest {
    pub(super) client: ClientRecord,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) code_challenge: String,
    pub(super) scope: &'static str,
}

/// An error response to the client (RFC 6749 section 4.1.2.1).
struct ErrorResponse {
    error: &'static str,
    description: &'static str,
}

/// The longest `state` of a client, in bytes.
const MAX_STATE: usize = 4096;

impl AuthorizationRequest {
    /// Validates the parameters of a request.
    pub(super) async fn validate(state: &ServerState, params: &Params) -> Result<Self, AuthorizeError> {
        let client = find_client(state, params).await?;
        let redirect_uri = registered_redirect_uri(&client, params)?;
        // From here on an error goes to the client.
        let settings = &state.settings;
        let client_state = client_state(params);
        let reply_state = client_state.as_ref().ok().cloned().flatten();
        let refuse = |ErrorResponse { error, description }| AuthorizeError::Client {
            location: authorization_response::error_location(
                settings.issuer(),
                &redirect_uri,
                reply_state.as_deref(),
                error,
                description,
            ),
            description,
            redirect: is_trusted(settings, &client, &redirect_uri),
        };
        let client_state = client_state.map_err(refuse)?;
        check_response_type(params).map_err(refuse)?;
        check_request_object(params).map_err(refuse)?;
        let code_challenge = code_challenge(params).map_err(refuse)?;
        let scope = granted_scope(settings, params).map_err(refuse)?;
        Ok(Self {
            client,
            redirect_uri,
            state: client_state,
            code_challenge,
            scope,
        })
    }

    /// The part of the request that a remembered approval covers.
    pub(super) fn to_approve(&self) -> ApprovedRequest<'_> {
        ApprovedRequest {
            client_id: &self.client.client_id.0,
            redirect_uri: &self.redirect_uri,
            scope: self.scope,
        }
    }

    /// The parts that the CSRF token of the consent page covers.
    pub(super) fn csrf_parts<'a>(&'a self, browser: &'a BrowserId) -> [&'a str; 6] {
        [
            browser.as_str(),
            &self.client.client_id.0,
            &self.redirect_uri,
            self.state.as_deref().unwrap_or_default(),
            &self.code_challenge,
            self.scope,
        ]
    }

    /// The purpose of the sign-in that follows.
    pub(super) fn into_purpose(self, approved_by: Option<UserId>) -> Purpose {
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

async fn find_client(state: &ServerState, params: &Params) -> Result<ClientRecord, AuthorizeError> {
    let client_id = params.value("client_id").ok_or(ErrorPage::BadRequest)?;
    let client = client_lookup::find(state, &ClientId(client_id.to_owned())).await?;
    Ok(client.ok_or(ErrorPage::UnknownClient)?)
}

fn registered_redirect_uri(client: &ClientRecord, params: &Params) -> Result<String, ErrorPage> {
    let presented = params.value("redirect_uri").ok_or(ErrorPage::BadRequest)?;
    let mut registered = client.redirect_uris.iter();
    if !registered.any(|registered| redirect_uri::matches(registered, presented)) {
        return Err(ErrorPage::UnknownRedirectUri);
    }
    Ok(presented.to_owned())
}

/// Whether an error may redirect the browser before the user has decided anything.
fn is_trusted(settings: &Settings, client: &ClientRecord, redirect_uri: &str) -> bool {
    let is_configured = settings
        .clients
        .iter()
        .any(|configured| configured.client_id == client.client_id);
    is_configured || Url::parse(redirect_uri).is_ok_and(|url| redirect_uri::is_loopback(&url))
}

fn client_state(params: &Params) -> Result<Option<String>, ErrorResponse> {
    match params.value("state") {
        Some(state) if state.len() > MAX_STATE => Err(invalid_request("state is too long")),
        state => Ok(state.map(str::to_owned)),
    }
}

fn check_response_type(params: &Params) -> Result<(), ErrorResponse> {
    match params.value("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err(ErrorResponse {
                error: "unsupported_response_type",
                description: "response_type must be code",
            });
        }
        None => return Err(invalid_request("response_type is missing")),
    }
    match params.value("response_mode") {
        Some("query") | None => Ok(()),
        Some(_) => Err(invalid_request("response_mode must be query")),
    }
}

/// Refuses request objects (RFC 9101), which this server does not support.
fn check_request_object(params: &Params) -> Result<(), ErrorResponse> {
    for (name, error, description) in [
        ("request", "request_not_supported", "request is not supported"),
        (
            "request_uri",
            "request_uri_not_supported",
            "request_uri is not supported",
        ),
    ] {
        if params.value(name).is_some() {
            return Err(ErrorResponse { error, description });
        }
    }
    Ok(())
}

/// OAuth 2.1 section 4.1.1 requires PKCE; a missing method would mean plain (RFC 7636 section 4.3).
fn code_challenge(params: &Params) -> Result<String, ErrorResponse> {
    if params.value("code_challenge_method") != Some("S256") {
        return Err(invalid_request("PKCE is required, with code_challenge_method S256"));
    }
    match params.value("code_challenge") {
        Some(challenge) if pkce::is_challenge(challenge) => Ok(challenge.to_owned()),
        _ => Err(invalid_request("code_challenge is not an S256 challenge")),
    }
}

fn granted_scope(settings: &Settings, params: &Params) -> Result<&'static str, ErrorResponse> {
    if !settings.is_resource(params.value("resource")) {
        return Err(ErrorResponse {
            error: "invalid_target",
            description: "resource is not the resource of this server",
        });
    }
    scope::for_new_grant(params.value("scope")).map_err(|InvalidScopeError| ErrorResponse {
        error: "invalid_scope",
        description: "scope is not a list of scopes",
    })
}

fn invalid_request(description: &'static str) -> ErrorResponse {
    let error = "invalid_request";
    ErrorResponse { error, description }
}
