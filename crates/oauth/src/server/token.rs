//! The token endpoint: it exchanges a code or a refresh token for new tokens (RFC 6749 sections
//! 4.1.3 and 6).
//!
//! Refresh tokens rotate (OAuth 2.1 section 4.3.1), but clients lose responses and send a refresh
//! token several times at once. The successor of a refresh token is therefore a keyed hash of it: a
//! client that presents the predecessor again gets the *same* successor, until the successor is
//! used. Anything older ends the grant. Without the key the successor cannot be derived from the
//! predecessor, and the store still holds hashes only.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    Body, client_auth,
    oauth_error::OAuthError,
    params::{Params, RESOURCE},
    resource, response, scope,
    state::ServerState,
};
use crate::{
    account::AccountError,
    pkce,
    ports::{NewTokens, PresentedToken, Redemption},
    records::ClientRecord,
    secret,
};

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expires_in: u64,
    refresh_token: &'a str,
    scope: &'a str,
}

/// The parameters of the endpoint.
const PARAMS: [&str; 11] = [
    "grant_type",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
    "scope",
    RESOURCE,
    client_auth::CLIENT_ID,
    client_auth::SECRET,
    client_auth::ASSERTION,
    client_auth::ASSERTION_TYPE,
];

const CODE_REFUSED: &str = "the code is unknown, expired, used, or not for this request";
const REFRESH_REFUSED: &str = "the refresh token is unknown, expired, used or revoked";

pub(super) async fn token(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, OAuthError> {
    let params = Params::from_form(request, &PARAMS)?;
    let grant_type = required(&params, "grant_type", "grant_type is missing")?;
    let client = client_auth::authenticate(state, request.headers(), &params).await?;
    if !resource::is_own(&state.settings, &params) {
        return Err(OAuthError::InvalidTarget);
    }
    match grant_type {
        "authorization_code" => redeem_code(state, &client, &params).await,
        "refresh_token" => refresh(state, &client, &params).await,
        _ => Err(OAuthError::UnsupportedGrantType),
    }
}

async fn redeem_code(
    state: &ServerState,
    client: &ClientRecord,
    params: &Params,
) -> Result<Response<Body>, OAuthError> {
    let code = required(params, "code", "code is missing")?;
    // OAuth 2.1 section 10.2: the parameter is optional, and binding if it is sent. The code stays
    // bound to its client and verifier, and went nowhere but to its redirect URI.
    let redirect_uri = params.value("redirect_uri");
    let verifier = required(params, "code_verifier", "code_verifier is missing")?;
    let code = secret::hash(code);
    let record = state.grants.code(code).await?;
    let record = record.ok_or(OAuthError::InvalidGrant(CODE_REFUSED))?;
    // RFC 6749 section 4.1.3: the client and the redirect URI; RFC 7636 section 4.6: the verifier.
    if record.grant.client_id != client.client_id
        || redirect_uri.is_some_and(|redirect_uri| redirect_uri != record.redirect_uri)
        || !pkce::matches_challenge(verifier, &record.code_challenge)
    {
        tracing::warn!(
            client = client.client_id.0,
            grant = record.grant.id.0,
            "code refused: client, redirect_uri or code_verifier does not match"
        );
        return Err(OAuthError::InvalidGrant(CODE_REFUSED));
    }
    let now = state.clock.now();
    state
        .rate_limits
        .token_request(&record.grant.id, record.grant.user, &client.client_id)?;
    let refresh = secret::mint(secret::REFRESH);
    issue(state, client, PresentedToken::Code(code), refresh, now).await
}

async fn refresh(state: &ServerState, client: &ClientRecord, params: &Params) -> Result<Response<Body>, OAuthError> {
    let presented = required(params, "refresh_token", "refresh_token is missing")?;
    let hash = secret::hash(presented);
    let grant = state.grants.grant_of_token(hash).await?;
    // RFC 6749 section 6: a refresh token is bound to its client.
    let grant = grant
        .filter(|grant| grant.client_id == client.client_id && state.settings.still_allows(&grant.login))
        .ok_or(OAuthError::InvalidGrant(REFRESH_REFUSED))?;
    let now = state.clock.now();
    state
        .rate_limits
        .token_request(&grant.id, grant.user, &client.client_id)?;
    if !scope::allows_refresh(&grant.scope, params.value("scope")) {
        return Err(OAuthError::InvalidScope);
    }
    // Without an account, new tokens would be useless to the client.
    match state.accounts.account(grant.user).valid_token().await {
        Ok(_) => {}
        Err(AccountError::Terminal(_)) => return Err(OAuthError::InvalidGrant(REFRESH_REFUSED)),
        Err(AccountError::Transient(error)) => return Err(OAuthError::Upstream(error)),
    }
    let successor = state.sealer.keyed_hash("refresh successor", &[presented]);
    let refresh = secret::with_prefix(secret::REFRESH, successor);
    let presented = PresentedToken::Refresh {
        token: hash,
        grace: state.settings.config.refresh_grace,
    };
    issue(state, client, presented, refresh, now).await
}

fn required<'p>(params: &'p Params, name: &str, missing: &'static str) -> Result<&'p str, OAuthError> {
    params.value(name).ok_or(OAuthError::InvalidRequest(missing))
}

/// Issues an access token and `refresh` for a code or refresh token presented at `presented_at`.
/// The operator reads about reuse, since someone else may hold the token.
async fn issue(
    state: &ServerState,
    client: &ClientRecord,
    presented: PresentedToken,
    refresh: SecretString,
    presented_at: SystemTime,
) -> Result<Response<Body>, OAuthError> {
    let (what, refused) = match &presented {
        PresentedToken::Code(_) => ("authorization code", CODE_REFUSED),
        PresentedToken::Refresh { .. } => ("refresh token", REFRESH_REFUSED),
    };
    let (config, now) = (&state.settings.config, state.clock.now());
    let access = secret::mint(secret::ACCESS);
    let tokens = NewTokens {
        access: secret::hash(access.expose_secret()),
        access_expires_at: now + config.access_token_ttl + config.access_token_grace,
        refresh: secret::hash(refresh.expose_secret()),
        refresh_expires_at: now + config.refresh_token_ttl,
    };
    let redemption = state.revocations.redeem(presented, tokens, presented_at).await?;
    if let Redemption::Reissued(grant) = &redemption {
        tracing::info!(
            client = client.client_id.0,
            user = grant.user.0,
            grant = grant.id.0,
            "refresh token used again that was replaced and whose successor is not in use"
        );
    }
    let (grant, consequence) = match redemption {
        Redemption::Issued(grant) | Redemption::Reissued(grant) => {
            let body = TokenResponse {
                access_token: access.expose_secret(),
                token_type: "Bearer",
                expires_in: config.access_token_ttl.as_secs(),
                refresh_token: refresh.expose_secret(),
                scope: &grant.scope,
            };
            return Ok(response::json(StatusCode::OK, &body));
        }
        Redemption::GrantRevoked(grant) => (grant, "grant ended"),
        Redemption::FamilyRevoked(grant) => (grant, "its tokens revoked"),
        Redemption::Invalid => return Err(OAuthError::InvalidGrant(refused)),
    };
    let client = &client.client_id.0;
    tracing::warn!(
        client,
        grant = grant.0,
        "{what} used twice, perhaps by someone else: {consequence}"
    );
    Err(OAuthError::InvalidGrant(refused))
}
