//! The token endpoint: a code or a refresh token for new tokens (RFC 6749 sections 4.1.3 and 6).
//!
//! Refresh tokens rotate (OAuth 2.1 section 4.3.1), but clients lose answers and send one refresh token several times
//! at once. So the successor of a refresh token is a keyed hash of it: whoever presents the predecessor again gets
//! the *same* successor, until the successor has been used. Anything older ends the grant. Without the key nobody can
//! tell the successor from the predecessor, and the store still holds hashes only.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    Body, ServerState, client_auth,
    params::Params,
    response::{self, OAuthError},
    scope::{self, InvalidScope},
};
use crate::{
    account::AccountError,
    pkce,
    ports::{NewTokens, Redemption},
    records::{ClientRecord, GrantRecord},
    secret,
};

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct Tokens<'a> {
    access_token: &'a str,
    token_type: &'a str,
    expires_in: u64,
    refresh_token: &'a str,
    scope: &'a str,
}

pub(super) async fn token(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    match try_token(inner, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn try_token(inner: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, OAuthError> {
    let params = Params::of_form(request).map_err(|error| OAuthError::InvalidRequest(error.describe()))?;
    let grant_type = params
        .value("grant_type")
        .ok_or(OAuthError::InvalidRequest("grant_type is missing"))?;
    let client = client_auth::authenticate(inner, request.headers(), &params).await?;
    if !inner.is_resource(params.value("resource")) {
        return Err(OAuthError::InvalidTarget);
    }
    let outcome = match grant_type {
        "authorization_code" => spend_code(inner, &client, &params).await,
        "refresh_token" => spend_refresh(inner, &client, &params).await,
        _ => Err(OAuthError::UnsupportedGrantType),
    };
    // In the name of the client only what was refused is counted.
    if let Err(refused @ OAuthError::InvalidGrant(_)) = outcome {
        let now = inner.clock.now();
        return Err(inner.rate_limits.guess(&client.client_id, refused, now));
    }
    outcome
}

async fn spend_code(inner: &ServerState, client: &ClientRecord, params: &Params) -> Result<Response<Body>, OAuthError> {
    const REFUSED: &str = "the code is unknown, expired, used, or not for this request";
    let code = params
        .value("code")
        .ok_or(OAuthError::InvalidRequest("code is missing"))?;
    let redirect_uri = params
        .value("redirect_uri")
        .ok_or(OAuthError::InvalidRequest("redirect_uri is missing"))?;
    let verifier = params
        .value("code_verifier")
        .ok_or(OAuthError::InvalidRequest("code_verifier is missing"))?;
    let code = secret::hash(code);
    let Some(record) = inner.grants.code(code).await? else {
        return Err(OAuthError::InvalidGrant(REFUSED));
    };
    // RFC 6749 section 4.1.3: the client and the redirect URI; RFC 7636 section 4.6: the verifier.
    if record.client_id != client.client_id
        || record.redirect_uri != redirect_uri
        || !pkce::verifies(verifier, &record.code_challenge)
    {
        tracing::warn!(
            client = client.client_id.0,
            grant = record.grant.0,
            "a code was presented that is not for this request"
        );
        return Err(OAuthError::InvalidGrant(REFUSED));
    }
    let now = inner.clock.now();
    inner
        .rate_limits
        .tokens(&record.grant, record.user, &client.client_id, now)?;
    let access = secret::mint(secret::ACCESS);
    let refresh = secret::mint(secret::REFRESH);
    let spent = inner
        .revocations
        .redeem_code(code, inner.new_tokens(&access, &refresh), now)
        .await?;
    let grant = issued(spent, client, "code").ok_or(OAuthError::InvalidGrant(REFUSED))?;
    Ok(inner.tokens(&access, &refresh, &grant.scope))
}

async fn spend_refresh(
    inner: &ServerState,
    client: &ClientRecord,
    params: &Params,
) -> Result<Response<Body>, OAuthError> {
    const REFUSED: &str = "the refresh token is unknown, expired, used or revoked";
    let presented = params
        .value("refresh_token")
        .ok_or(OAuthError::InvalidRequest("refresh_token is missing"))?;
    let hash = secret::hash(presented);
    // RFC 6749 section 6: bound to the client.
    let grant = inner
        .grants
        .grant_of_token(hash)
        .await?
        .filter(|grant| grant.client_id == client.client_id);
    let grant = grant
        .filter(|grant| inner.still_allowed(&grant.login))
        .ok_or(OAuthError::InvalidGrant(REFUSED))?;
    let now = inner.clock.now();
    inner
        .rate_limits
        .tokens(&grant.id, grant.user, &client.client_id, now)?;
    scope::of_renewal(&grant.scope, params.value("scope")).map_err(|InvalidScope| OAuthError::InvalidScope)?;
    // A client is not told to go on when there is nothing behind its tokens any more.
    match inner.accounts.account(grant.user).current().await {
        Ok(_) => {}
        Err(AccountError::Terminal(_)) => return Err(OAuthError::InvalidGrant(REFUSED)),
        Err(AccountError::Transient(error)) => return Err(OAuthError::Upstream(error)),
    }
    let access = secret::mint(secret::ACCESS);
    let successor = inner.sealer.keyed_hash("refresh successor", &[presented]);
    let refresh = secret::with_prefix(secret::REFRESH, successor);
    let spent = inner
        .revocations
        .redeem_refresh_token(hash, inner.new_tokens(&access, &refresh), now)
        .await?;
    let grant = issued(spent, client, "refresh token").ok_or(OAuthError::InvalidGrant(REFUSED))?;
    Ok(inner.tokens(&access, &refresh, &grant.scope))
}

/// The grant on which tokens have been issued, if they have. A reuse is told to the operator: someone else may hold what was used.
fn issued(spent: Redemption, client: &ClientRecord, what: &'static str) -> Option<GrantRecord> {
    match spent {
        Redemption::Issued(grant) => Some(grant),
        Redemption::GrantRevoked(grant) => {
            tracing::warn!(
                client = client.client_id.0,
                grant = grant.0,
                what,
                "reuse: it was used before, and its grant has been ended"
            );
            None
        }
        Redemption::FamilyRevoked(grant) => {
            tracing::warn!(
                client = client.client_id.0,
                grant = grant.0,
                what,
                "reuse: it was used before, and the tokens that it bought have been revoked"
            );
            None
        }
        Redemption::Invalid => None,
    }
}

impl ServerState {
    fn new_tokens(&self, access: &SecretString, refresh: &SecretString) -> NewTokens {
        let now = self.clock.now();
        NewTokens {
            access: secret::hash(access.expose_secret()),
            access_expires_at: now + self.settings.access_token_ttl + self.settings.access_token_grace,
            refresh: secret::hash(refresh.expose_secret()),
            refresh_expires_at: now + self.settings.refresh_token_ttl,
        }
    }

    fn tokens(&self, access: &SecretString, refresh: &SecretString, scope: &str) -> Response<Body> {
        let tokens = Tokens {
            access_token: access.expose_secret(),
            token_type: "Bearer",
            expires_in: self.settings.access_token_ttl.as_secs(),
            refresh_token: refresh.expose_secret(),
            scope,
        };
        response::json(StatusCode::OK, &tokens)
    }
}
