//! The validation of an authorization request, one function per rule.

use url::Url;

use super::error::AuthorizeError;
use crate::{
    config::Settings,
    ids::ClientId,
    pkce,
    records::{ClientRecord, ClientRequest},
    redirect_uri,
    server::{
        authorization_response, client_lookup, pages::ErrorPage, params::Params, resource, scope, state::ServerState,
    },
};

/// An error and its description (RFC 6749 section 4.1.2.1).
type ErrorParams = (&'static str, &'static str);

/// The longest `state` of a client, in bytes.
const MAX_STATE: usize = 4096;

/// Validates the parameters of a request.
pub(super) async fn validate(
    state: &ServerState,
    params: &Params,
) -> Result<(ClientRecord, ClientRequest), AuthorizeError> {
    // Two clients or two redirect URIs: neither is known to be the client's.
    if params.is_repeated("client_id") || params.is_repeated("redirect_uri") {
        return Err(ErrorPage::BadRequest.into());
    }
    let client = find_client(state, params).await?;
    let settings = &state.settings;
    let mut request = ClientRequest {
        client_id: client.client_id.clone(),
        redirect_uri: registered_redirect_uri(&client, params)?,
        client_state: None,
        code_challenge: String::new(),
        scope: String::new(),
        approved_by: None,
    };
    // From here on an error goes to the client.
    match fill_in(&mut request, settings, params) {
        Ok(()) => Ok((client, request)),
        Err(error) => Err(AuthorizeError::Client {
            location: authorization_response::error_location(settings.issuer(), &request, error),
            description: error.1,
            redirect: is_trusted(settings, &request),
        }),
    }
}

/// Checks the other parameters and adds them to the request.
fn fill_in(request: &mut ClientRequest, settings: &Settings, params: &Params) -> Result<(), ErrorParams> {
    request.client_state = client_state(params)?;
    // RFC 6749 section 4.1.2.1: a repeated parameter is an invalid request.
    params.check_single().map_err(|error| ("invalid_request", error.0))?;
    check_response_type(params)?;
    check_request_object(params)?;
    request.code_challenge = code_challenge(params)?;
    if !resource::is_own(settings, params) {
        return Err(("invalid_target", "resource is not the resource of this server"));
    }
    let scope = scope::for_new_grant(params.value("scope"));
    request.scope = scope
        .ok_or(("invalid_scope", "scope is not a list of scopes"))?
        .to_owned();
    Ok(())
}

async fn find_client(state: &ServerState, params: &Params) -> Result<ClientRecord, ErrorPage> {
    let client_id = params.value("client_id").ok_or(ErrorPage::BadRequest)?;
    let client = client_lookup::find(state, &ClientId(client_id.to_owned())).await?;
    client.ok_or(ErrorPage::UnknownClient)
}

/// The redirect URI of a request. It may be absent if the client has only one (RFC 6749 section
/// 3.1.2.3).
fn registered_redirect_uri(client: &ClientRecord, params: &Params) -> Result<String, ErrorPage> {
    let presented = match (params.value("redirect_uri"), &client.redirect_uris[..]) {
        (Some(presented), _) => presented,
        (None, [only]) => only,
        (None, _) => return Err(ErrorPage::BadRequest),
    };
    let mut registered = client.redirect_uris.iter();
    if !registered.any(|registered| redirect_uri::matches(registered, presented)) {
        return Err(ErrorPage::UnknownRedirectUri);
    }
    Ok(presented.to_owned())
}

/// Returns whether an error may redirect the browser before the user has decided anything.
fn is_trusted(settings: &Settings, request: &ClientRequest) -> bool {
    let mut configured = settings.clients.iter();
    configured.any(|client| client.client_id == request.client_id)
        || Url::parse(&request.redirect_uri).is_ok_and(|url| redirect_uri::is_loopback(&url))
}

fn client_state(params: &Params) -> Result<Option<String>, ErrorParams> {
    match params.value("state") {
        Some(_) if params.is_repeated("state") => Err(("invalid_request", "state is repeated")),
        Some(state) if state.len() > MAX_STATE => Err(("invalid_request", "state is too long")),
        state => Ok(state.map(str::to_owned)),
    }
}

fn check_response_type(params: &Params) -> Result<(), ErrorParams> {
    match params.value("response_type") {
        Some("code") => {}
        Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
        None => return Err(("invalid_request", "response_type is missing")),
    }
    match params.value("response_mode") {
        Some("query") | None => Ok(()),
        Some(_) => Err(("invalid_request", "response_mode must be query")),
    }
}

/// Refuses request objects (RFC 9101), which this server does not support.
fn check_request_object(params: &Params) -> Result<(), ErrorParams> {
    if params.value("request").is_some() {
        return Err(("request_not_supported", "request is not supported"));
    }
    if params.value("request_uri").is_some() {
        return Err(("request_uri_not_supported", "request_uri is not supported"));
    }
    Ok(())
}

/// OAuth 2.1 section 4.1.1 requires PKCE; a missing method would mean plain (RFC 7636 section 4.3).
fn code_challenge(params: &Params) -> Result<String, ErrorParams> {
    if params.value("code_challenge_method") != Some("S256") {
        let description = "PKCE is required, with code_challenge_method S256";
        return Err(("invalid_request", description));
    }
    match params.value("code_challenge") {
        Some(challenge) if pkce::is_challenge(challenge) => Ok(challenge.to_owned()),
        _ => Err(("invalid_request", "code_challenge is not an S256 challenge")),
    }
}
