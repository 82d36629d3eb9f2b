//! Clients that authenticate by a signed assertion: `private_key_jwt` (RFC 7521 section 4.2, RFC
//! 7523 sections 2.2 and 3).
//!
//! An assertion is for this server alone, short-lived, and valid once. The store records its use,
//! so that a restart does not make it valid again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    fetch::FetchError,
    jwt::{Audience, Claims, Jwt, KeySet, SignatureError},
    records::{ClientRecord, KeySource},
    secret,
    server::{oauth_error::OAuthError, state::ServerState},
};

/// RFC 7523 section 2.2.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The allowed difference between the client's clock and this one.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The longest lifetime of an assertion.
const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The longest `jti`, in bytes.
const MAX_ID: usize = 512;

/// The subject of an assertion that is not verified yet.
pub(super) fn subject(assertion: &str) -> Option<String> {
    Jwt::parse(assertion)?.unverified().sub.clone()
}

/// Verifies an assertion of a client.
pub(super) async fn verify(
    state: &ServerState,
    client: &ClientRecord,
    source: &KeySource,
    assertion: &str,
) -> Result<(), OAuthError> {
    let jwt = Jwt::parse(assertion).ok_or_else(|| refuse(client, "it is malformed"))?;
    let now = state.clock.now();
    // Before the keys are read, which may take a request to another server.
    check_claims(state.settings.issuer(), client, jwt.unverified(), now).map_err(|reason| refuse(client, reason))?;
    let mut verified = jwt.verify(&*key_set(state, client, source, false).await?);
    if matches!(verified, Err(SignatureError::UnknownKey)) && matches!(source, KeySource::Uri(_)) {
        // The client may have changed its keys since they were read.
        verified = jwt.verify(&*key_set(state, client, source, true).await?);
    }
    let claims = verified.map_err(|_| refuse(client, "it is not signed with a key of the client"))?;
    let (Some(id), Some(expires_at)) = (&claims.jti, claims.exp.and_then(system_time)) else {
        return Err(refuse(client, "it has no jti or no exp"));
    };
    // The signature is the client's: its rate limit counts from here, before anything is written.
    state.rate_limits.client_request(&client.client_id)?;
    state.rate_limits.assertion()?;
    // The length marks where the client identifier ends and the `jti` begins.
    let client_id = &client.client_id.0;
    let assertion = secret::hash(&format!("{}:{client_id}{id}", client_id.len()));
    let is_first_use = state
        .clients
        .use_assertion(assertion, expires_at + CLOCK_SKEW, now)
        .await?;
    if !is_first_use {
        return Err(refuse(client, "it was used before"));
    }
    Ok(())
}

/// RFC 7523 section 3, in its order.
fn check_claims(issuer: &str, client: &ClientRecord, claims: &Claims, now: SystemTime) -> Result<(), &'static str> {
    let is_client = |name: &Option<String>| name.as_ref() == Some(&client.client_id.0);
    if !is_client(&claims.iss) || !is_client(&claims.sub) {
        return Err("iss or sub is not the client");
    }
    // The issuer, or the endpoint. An assertion that is also for another server could come from
    // there.
    let is_here = |audience: &String| {
        audience.strip_suffix('/').unwrap_or(audience) == issuer
            || audience
                .strip_prefix(issuer)
                .is_some_and(|rest| matches!(rest, "/oauth/token" | "/oauth/revoke"))
    };
    let audience = claims.aud.as_ref().map(Audience::all).unwrap_or_default();
    if audience.is_empty() || !audience.iter().all(is_here) {
        return Err("aud is not this server alone");
    }
    let expires_at = claims.exp.and_then(system_time).ok_or("it has no exp")?;
    if expires_at + CLOCK_SKEW <= now {
        return Err("it has expired");
    }
    if expires_at > now + MAX_LIFETIME + CLOCK_SKEW {
        return Err("it is valid for more than an hour");
    }
    for (seconds, reason) in [
        (claims.nbf, "it is not valid yet"),
        (claims.iat, "it was issued in the future"),
    ] {
        if let Some(seconds) = seconds
            && system_time(seconds).is_none_or(|from| from > now + CLOCK_SKEW)
        {
            return Err(reason);
        }
    }
    match claims.jti.as_deref() {
        Some(id) if !id.is_empty() && id.len() <= MAX_ID => Ok(()),
        Some(_) | None => Err("jti is missing or too long"),
    }
}

async fn key_set(
    state: &ServerState,
    client: &ClientRecord,
    source: &KeySource,
    reload: bool,
) -> Result<Arc<KeySet>, OAuthError> {
    match (source, &state.documents) {
        (KeySource::Inline(json), _) => KeySet::parse(json.as_bytes())
            .map(Arc::new)
            .map_err(|reason| refuse(client, reason)),
        (KeySource::Uri(uri), Some(documents)) => documents.key_set(uri, reload).await.map_err(|error| match error {
            FetchError::Unavailable(reason) => {
                tracing::warn!(
                    client = client.client_id.0,
                    reason,
                    "client authentication refused for now: jwks_uri cannot be read"
                );
                OAuthError::ClientUnavailable
            }
            FetchError::Refused(reason) | FetchError::Forbidden(reason) => refuse(client, reason),
        }),
        (KeySource::Uri(_), None) => Err(refuse(client, "jwks_uri is not supported")),
    }
}

/// Logs the reason for the operator. The response does not state it.
fn refuse(client: &ClientRecord, reason: &'static str) -> OAuthError {
    let host = client.domain.as_deref().unwrap_or_default();
    tracing::warn!(
        client = client.client_id.0,
        host,
        reason,
        "client authentication refused: private_key_jwt assertion invalid"
    );
    OAuthError::InvalidClient { basic: false }
}

/// A NumericDate (RFC 7519 section 2). Values that are not a time of this age are refused.
fn system_time(seconds: f64) -> Option<SystemTime> {
    let sane = (0.0..1e11).contains(&seconds);
    sane.then(|| UNIX_EPOCH + Duration::from_secs_f64(seconds))
}
