//! Revocation (RFC 7009): either token ends the whole grant.
//!
//! The answer is the same whether there was such a token or not (section 2.2), and for a token of another client,
//! which is left alone.

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::{Body, ServerState, client_auth, params::Params, response, response::OAuthError};
use crate::secret;

pub(super) async fn revoke(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    match try_revoke(inner, request).await {
        Ok(()) => response::plain(StatusCode::OK, ""),
        Err(error) => error.into_response(),
    }
}

async fn try_revoke(inner: &ServerState, request: &Request<Bytes>) -> Result<(), OAuthError> {
    let params = Params::of_form(request).map_err(|error| OAuthError::InvalidRequest(error.describe()))?;
    let client = client_auth::authenticate(inner, request.headers(), &params).await?;
    let token = params
        .value("token")
        .ok_or(OAuthError::InvalidRequest("token is missing"))?;
    let grant = inner.grants.grant_of_token(secret::hash(token)).await?;
    if let Some(grant) = grant.filter(|grant| grant.client_id == client.client_id) {
        inner.revocations.end_grant(grant.id.clone()).await?;
        tracing::info!(
            user = grant.user.0,
            client = grant.client_id.0,
            grant = grant.id.0,
            "grant revoked by its client"
        );
    }
    Ok(())
}
