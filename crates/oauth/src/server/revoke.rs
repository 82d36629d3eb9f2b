//! Revocation (RFC 7009): any token of a sign-in, also one that was replaced or has expired, ends
//! that sign-in and no other. The last sign-in ends the grant.
//!
//! The response is the same for an unknown token (section 2.2), and for a token of another client,
//! which stays valid.

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::{Body, client_auth, oauth_error::OAuthError, params::Params, response, state::ServerState};
use crate::secret;

/// The parameters of the endpoint. The type of the token is evident, so that the hint is ignored
/// (RFC 7009 section 2.1).
const PARAMS: [&str; 6] = [
    "token",
    "token_type_hint",
    client_auth::CLIENT_ID,
    client_auth::SECRET,
    client_auth::ASSERTION,
    client_auth::ASSERTION_TYPE,
];

pub(super) async fn revoke(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, OAuthError> {
    let params = Params::from_form(request, &PARAMS)?;
    let client = client_auth::authenticate(state, request.headers(), &params).await?;
    let token = params
        .value("token")
        .ok_or(OAuthError::InvalidRequest("token is missing"))?;
    let token = secret::hash(token);
    let grant = state.grants.grant_of_token(token).await?;
    if let Some(grant) = grant.filter(|grant| grant.client_id == client.client_id) {
        let ended = state.revocations.end_family(token).await?;
        tracing::info!(
            user = grant.user.0,
            client = grant.client_id.0,
            grant = grant.id.0,
            last = ended.is_some_and(|ended| ended.whole_grant),
            "sign-in revoked by its client"
        );
    }
    Ok(response::plain(StatusCode::OK, ""))
}
