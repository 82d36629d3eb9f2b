//! Clients that prove who they are by a signed assertion: `private_key_jwt` (RFC 7521 section 4.2, RFC 7523 sections 2.2
//! and 3).
//!
//! The assertion is for this server alone, short-lived, and good once. Whether it has been used is in the store, so that
//! a restart does not make it good again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::ClientAuthError;
use crate::{
    fetch::FetchError,
    jwt::{Audience, Claims, Jwt, KeySet, Unverified},
    records::{ClientRecord, KeySource},
    secret,
    server::{ServerState, response::OAuthError},
};

/// RFC 7523 section 2.2.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How far the client's clock may be off.
const SKEW: Duration = Duration::from_secs(60);
/// How long an assertion may be good.
const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The longest `jti`, in bytes.
const MAX_ID: usize = 512;

/// Whom an assertion speaks of, before anything of it has been checked.
pub(super) fn subject(assertion: &str) -> Option<String> {
    Jwt::parse(assertion)?.unverified().sub.clone()
}

/// Checks an assertion of a client.
pub(super) async fn check(
    inner: &ServerState,
    client: &ClientRecord,
    source: &KeySource,
    assertion: &str,
) -> Result<(), ClientAuthError> {
    let jwt = Jwt::parse(assertion).ok_or_else(|| refuse(client, "it cannot be read"))?;
    let now = inner.clock.now();
    // Before the keys are looked for, which may be a request to somewhere.
    check_claims(inner, client, jwt.unverified(), now).map_err(|why| refuse(client, why))?;
    let mut verified = jwt.verify(&*keys(inner, client, source, false).await?);
    if matches!(verified, Err(Unverified::NoKey)) && matches!(source, KeySource::Uri(_)) {
        // The client may have changed its keys since they were read.
        verified = jwt.verify(&*keys(inner, client, source, true).await?);
    }
    let claims = verified.map_err(|_| refuse(client, "no key of the client has signed it"))?;
    let (Some(id), Some(expires_at)) = (&claims.jti, claims.exp.and_then(instant)) else {
        return Err(refuse(client, "it has no jti or no exp"));
    };
    // It is the client's: its own ceiling counts from here, before anything is written.
    inner
        .rate_limits
        .client(&client.client_id, now)
        .map_err(ClientAuthError::Error)?;
    inner.rate_limits.assertion(now).map_err(ClientAuthError::Error)?;
    // Length before text: the border between the two is where it is.
    let once = secret::hash(&format!("{}:{}{id}", client.client_id.0.len(), client.client_id));
    let first = inner.clients.use_assertion(once, expires_at + SKEW, now).await;
    if !first.map_err(|error| ClientAuthError::Error(OAuthError::Store(error)))? {
        return Err(refuse(client, "it has been used before"));
    }
    Ok(())
}

/// RFC 7523 section 3, in its order.
fn check_claims(
    inner: &ServerState,
    client: &ClientRecord,
    claims: &Claims,
    now: SystemTime,
) -> Result<(), &'static str> {
    let is_client = |name: &Option<String>| name.as_deref() == Some(client.client_id.0.as_str());
    if !is_client(&claims.iss) || !is_client(&claims.sub) {
        return Err("its iss and sub are not the client");
    }
    // The issuer, or the endpoint that it is sent to. One that is also for someone else could come from there.
    let issuer = &inner.settings.issuer;
    let is_here = |audience: &String| {
        audience.strip_suffix('/').unwrap_or(audience) == issuer
            || audience
                .strip_prefix(issuer.as_str())
                .is_some_and(|rest| matches!(rest, "/oauth/token" | "/oauth/revoke"))
    };
    let audience = claims.aud.as_ref().map(Audience::all).unwrap_or_default();
    if audience.is_empty() || !audience.iter().all(is_here) {
        return Err("its aud is not this server alone");
    }
    let expires_at = claims.exp.and_then(instant).ok_or("it has no exp")?;
    if expires_at + SKEW <= now {
        return Err("it has expired");
    }
    if expires_at > now + MAX_LIFETIME + SKEW {
        return Err("it is good for more than an hour");
    }
    for (seconds, why) in [
        (claims.nbf, "it is not good yet"),
        (claims.iat, "it was made in the future"),
    ] {
        if let Some(seconds) = seconds
            && instant(seconds).is_none_or(|from| from > now + SKEW)
        {
            return Err(why);
        }
    }
    match claims.jti.as_deref() {
        Some(id) if !id.is_empty() && id.len() <= MAX_ID => Ok(()),
        Some(_) | None => Err("it has no jti, or a long one"),
    }
}

async fn keys(
    inner: &ServerState,
    client: &ClientRecord,
    source: &KeySource,
    newer: bool,
) -> Result<Arc<KeySet>, ClientAuthError> {
    match (source, &inner.documents) {
        (KeySource::Inline(json), _) => KeySet::parse(json.as_bytes())
            .map(Arc::new)
            .map_err(|why| refuse(client, why)),
        (KeySource::Uri(uri), Some(documents)) => documents.key_set(uri, newer).await.map_err(|error| match error {
            FetchError::Unavailable(why) => {
                tracing::warn!(
                    client = client.client_id.0,
                    why,
                    "the keys of a client cannot be read now"
                );
                ClientAuthError::Error(OAuthError::Unreachable)
            }
            FetchError::Refused(why) | FetchError::Forbidden(why) => refuse(client, why),
        }),
        (KeySource::Uri(_), None) => Err(refuse(client, "key sets are not read here")),
    }
}

/// The reason is for the operator: the client gets the one answer there is.
fn refuse(client: &ClientRecord, why: &'static str) -> ClientAuthError {
    let host = client.domain.as_deref().unwrap_or_default();
    tracing::warn!(
        client = client.client_id.0,
        host,
        why,
        "the assertion of a client is refused"
    );
    ClientAuthError::Client
}

/// A NumericDate (RFC 7519 section 2). Nothing that is not a time of this age.
fn instant(seconds: f64) -> Option<SystemTime> {
    let sane = (0.0..1e11).contains(&seconds);
    sane.then(|| UNIX_EPOCH + Duration::from_secs_f64(seconds))
}
