//! The guard of the protected resource: a bearer becomes a [`Caller`], or the request gets 401 (RFC 6750, RFC 9728
//! section 5.1).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{Body, ServerState, metadata, response, scope};
use crate::{
    account::Account,
    ids::{ClientId, GrantId, UserId},
    records::GrantRecord,
    secret,
};

/// Who sends a request. Only the guard can make one.
#[derive(Clone, Debug)]
pub struct Caller {
    grant: Arc<GrantRecord>,
    account: Account,
}

/// Why a request has no caller.
enum BearerError {
    /// It brings no bearer.
    Missing,
    /// It brings one that is no good.
    Invalid,
    /// The bearer is good, and its grant lacks the scope of the resource.
    Scope,
    /// It brings several, or something that is not a bearer.
    Malformed,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
}

impl Caller {
    /// The grant: one user's yes to one client. It stays the same when tokens are refreshed.
    pub fn grant(&self) -> &GrantId {
        &self.grant.id
    }

    /// Forgejo's numeric id of the user.
    pub fn user(&self) -> UserId {
        self.grant.user
    }

    /// The user's login at the time of the sign-in.
    pub fn login(&self) -> &str {
        &self.grant.login
    }

    /// The client.
    pub fn client(&self) -> &ClientId {
        &self.grant.client_id
    }

    /// The user's upstream credential.
    pub fn account(&self) -> Account {
        self.account.clone()
    }
}

pub(super) async fn authenticate(inner: &ServerState, headers: &HeaderMap) -> Result<Caller, Response<Body>> {
    let bearer = bearer(headers).map_err(|denied| denied.into_response(inner))?;
    let now = inner.clock.now();
    let found = inner
        .access_tokens
        .find(secret::hash(bearer), now)
        .await
        .map_err(|error| response::OAuthError::Store(error).into_response())?;
    let grant = found
        .map(|bearer| bearer.grant)
        .filter(|grant| inner.still_allowed(&grant.login))
        .ok_or_else(|| BearerError::Invalid.into_response(inner))?;
    if !scope::allows(&grant.scope, metadata::SCOPE) {
        return Err(BearerError::Scope.into_response(inner));
    }
    let account = inner.accounts.account(grant.user);
    Ok(Caller {
        grant: Arc::new(grant),
        account,
    })
}

/// The bearer of a request (RFC 6750 section 2.1). The scheme is case-insensitive (RFC 9110 section 11.1).
fn bearer(headers: &HeaderMap) -> Result<&str, BearerError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(BearerError::Missing);
    };
    if values.next().is_some() {
        return Err(BearerError::Malformed);
    }
    let value = value.to_str().map_err(|_| BearerError::Malformed)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(BearerError::Malformed),
    }
}

/// What a client whose bearer has become worthless is told (RFC 6750 section 3).
pub(super) fn challenge(inner: &ServerState) -> Option<HeaderValue> {
    BearerError::Invalid.challenge(inner)
}

impl BearerError {
    /// The error code and what it means in words. RFC 6750 section 3.1: no code for a request without authentication.
    fn reason(&self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Missing => (None, "sign in to use this server"),
            Self::Invalid => (Some("invalid_token"), "the access token is unknown, expired or revoked"),
            Self::Scope => (
                Some("insufficient_scope"),
                "the grant does not have the scope of this resource",
            ),
            Self::Malformed => (Some("invalid_request"), "there must be one bearer in Authorization"),
        }
    }

    fn challenge(&self, inner: &ServerState) -> Option<HeaderValue> {
        let mut challenge = String::from("Bearer ");
        if let (Some(error), description) = self.reason() {
            challenge.push_str(&format!("error=\"{error}\", error_description=\"{description}\", "));
        }
        challenge.push_str(&format!(
            "resource_metadata=\"{}\", scope=\"{}\"",
            metadata::resource_metadata_url(&inner.settings),
            metadata::SCOPE
        ));
        HeaderValue::try_from(challenge).ok()
    }

    /// RFC 6750 section 3.1. 401 for a malformed request too: clients do not act on 400.
    fn into_response(self, inner: &ServerState) -> Response<Body> {
        let (error, description) = self.reason();
        let body = ErrorBody {
            error: error.unwrap_or("unauthorized"),
            error_description: description,
        };
        let status = match self {
            Self::Missing | Self::Invalid | Self::Malformed => StatusCode::UNAUTHORIZED,
            // The client asks its user for more (MCP authorization, "Step-Up Authorization Flow").
            Self::Scope => StatusCode::FORBIDDEN,
        };
        let mut response = response::json(status, &body);
        if let Some(challenge) = self.challenge(inner) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc"] {
            assert!(matches!(bearer(&headers(&[value])), Ok("abc")), "{value}");
        }
    }

    #[test]
    fn no_bearer_and_a_bad_one_are_told_apart() {
        assert!(matches!(bearer(&HeaderMap::new()), Err(BearerError::Missing)));
        for values in [&["Basic abc"][..], &["abc"], &["Bearer a", "Bearer b"]] {
            assert!(
                matches!(bearer(&headers(values)), Err(BearerError::Malformed)),
                "{values:?}"
            );
        }
    }
}
