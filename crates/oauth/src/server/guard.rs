//! The guard of the protected resource: it turns an access token into a [`Caller`] or answers 401
//! (RFC 6750, RFC 9728 section 5.1).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{Body, metadata, oauth_error::OAuthError, response, scope, state::ServerState};
use crate::{
    account::Account,
    config::Settings,
    ids::{ClientId, GrantId, UserId},
    records::GrantRecord,
    secret,
};

/// The sender of a request. Only the guard can make one.
#[derive(Clone, Debug)]
pub struct Caller {
    grant: Arc<GrantRecord>,
    account: Account,
}

/// The reason why a request is not authenticated.
pub(super) enum AuthenticateError {
    /// It has no bearer token.
    Missing,
    /// Its token is unknown, expired or revoked.
    InvalidToken,
    /// Its token is valid, but the grant lacks the scope of the resource.
    InsufficientScope,
    /// It has several tokens, or an `Authorization` header of another scheme.
    Malformed,
}

impl Caller {
    /// The grant: one user's consent to one client. It stays the same when tokens are refreshed.
    pub fn grant(&self) -> &GrantId {
        &self.grant.id
    }

    /// The user.
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

pub(super) async fn authenticate(state: &ServerState, headers: &HeaderMap) -> Result<Caller, Response<Body>> {
    let settings = &state.settings;
    let refuse = |error: AuthenticateError| error.into_response(settings);
    let token = bearer_token(headers).map_err(refuse)?;
    let found = state.access_tokens.find(secret::hash(token), state.clock.now()).await;
    let grant = found
        .map_err(|error| OAuthError::Store(error).into_response())?
        .map(|token| token.grant)
        .filter(|grant| settings.still_allows(&grant.login))
        .ok_or_else(|| refuse(AuthenticateError::InvalidToken))?;
    if !scope::contains(&grant.scope, scope::SCOPE) {
        return Err(refuse(AuthenticateError::InsufficientScope));
    }
    let account = state.accounts.account(grant.user);
    Ok(Caller {
        grant: Arc::new(grant),
        account,
    })
}

/// The bearer token of a request (RFC 6750 section 2.1). The scheme is case-insensitive (RFC 9110
/// section 11.1).
pub(super) fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthenticateError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next().ok_or(AuthenticateError::Missing)?, values.next()) else {
        return Err(AuthenticateError::Malformed);
    };
    let value = value.to_str().map_err(|_| AuthenticateError::Malformed)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(AuthenticateError::Malformed),
    }
}

impl AuthenticateError {
    /// The error code and its description. RFC 6750 section 3.1: no code for a request without
    /// authentication.
    fn reason(&self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Missing => (None, "sign in to use this server"),
            Self::InvalidToken => (Some("invalid_token"), "the access token is unknown, expired or revoked"),
            Self::InsufficientScope => (
                Some("insufficient_scope"),
                "the grant does not have the scope of this resource",
            ),
            Self::Malformed => (
                Some("invalid_request"),
                "the Authorization header must have exactly one bearer token",
            ),
        }
    }

    pub(super) fn challenge(&self, settings: &Settings) -> Option<HeaderValue> {
        let mut challenge = String::from("Bearer ");
        if let (Some(error), description) = self.reason() {
            challenge.push_str(&format!("error=\"{error}\", error_description=\"{description}\", "));
        }
        challenge.push_str(&format!(
            "resource_metadata=\"{}\", scope=\"{}\"",
            metadata::resource_metadata_url(settings),
            scope::SCOPE
        ));
        HeaderValue::try_from(challenge).ok()
    }

    /// RFC 6750 section 3.1, but 401 also for a malformed request, since clients do not act on 400.
    fn into_response(self, settings: &Settings) -> Response<Body> {
        let (error, description) = self.reason();
        let status = match self {
            Self::Missing | Self::InvalidToken | Self::Malformed => StatusCode::UNAUTHORIZED,
            // The client asks its user for more (MCP authorization, "Step-Up Authorization Flow").
            Self::InsufficientScope => StatusCode::FORBIDDEN,
        };
        let response = response::json_error(status, error.unwrap_or("unauthorized"), description);
        match self.challenge(settings) {
            Some(challenge) => response::with_header(response, header::WWW_AUTHENTICATE, challenge),
            None => response,
        }
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
    fn the_scheme_is_case_insensitive() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc"] {
            assert!(matches!(bearer_token(&headers(&[value])), Ok("abc")), "{value}");
        }
    }

    #[test]
    fn a_missing_and_a_malformed_token_are_distinguished() {
        assert!(matches!(
            bearer_token(&HeaderMap::new()),
            Err(AuthenticateError::Missing)
        ));
        for values in [&["Basic abc"][..], &["abc"], &["Bearer a", "Bearer b"]] {
            assert!(
                matches!(bearer_token(&headers(values)), Err(AuthenticateError::Malformed)),
                "{values:?}"
            );
        }
    }
}
