//! `/login/oauth/access_token`: codes and refresh tokens in exchange for new tokens.
//!
//! Every error is HTTP 400, against RFC 6749 section 5.2, and the error codes are Forgejo's own
//! choice. Refresh tokens are single-use (`INVALIDATE_REFRESH_TOKENS`, the default): every exchange
//! raises the one counter of its grant, and so invalidates all earlier refresh tokens of that user
//! and application. Of two refreshes at once one fails, as with Forgejo on SQLite.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{
    instance::{Application, Instance, seconds},
    shared::Shared,
    tokens::{self, REFRESH},
    wire::{self, Params},
};

type Credentials = (String, String);

#[derive(Debug)]
pub(super) struct TokenError {
    error: &'static str,
    description: String,
}

pub(super) async fn access_token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: Params,
) -> Result<Response, TokenError> {
    let now = shared.now();
    let credentials = credentials(&headers, &form)?;
    let (exchange, refresh) = match form.text("grant_type") {
        "authorization_code" => (1, 0),
        "refresh_token" => (0, 1),
        _ => {
            let description = "Only refresh_token or authorization_code grant type is supported";
            return Err(TokenError::new("unsupported_grant_type", description));
        }
    };
    let mut instance = shared.instance();
    let grant = if refresh == 1 {
        check_refresh(&instance, &credentials, &form, now)
    } else {
        check_code(&mut instance, &credentials, &form)
    };
    let issued = grant.map(|grant| issue(&mut instance, grant, now));
    let counters = &mut instance.counters;
    if issued.is_ok() {
        counters.exchanges += exchange;
        counters.refreshes += refresh;
    } else {
        counters.refresh_refusals += refresh;
    }
    Ok(wire::json(StatusCode::OK, &issued?))
}

/// Raises the counter and makes the tokens.
fn issue(instance: &mut Instance, id: i64, now: i64) -> Value {
    let grant = instance
        .grants
        .get_mut(&id)
        .expect("the grant was checked under this lock");
    grant.counter += 1;
    let counter = grant.counter;
    let lifetime = instance.lifetimes.access;
    json!({
        "access_token": instance.access_token(id, now),
        "token_type": "bearer",
        "expires_in": seconds(instance.advertised_lifetime.unwrap_or(lifetime)),
        "refresh_token": instance.refresh_token(id, counter, now),
    })
}

fn credentials(headers: &HeaderMap, form: &Params) -> Result<Credentials, TokenError> {
    let (id, secret) = (form.text("client_id"), form.text("client_secret"));
    match wire::basic(headers) {
        _ if !id.is_empty() && !secret.is_empty() => Ok((id.to_owned(), secret.to_owned())),
        None => Ok((id.to_owned(), secret.to_owned())),
        Some(None) => Err(TokenError::new("invalid_request", "cannot parse basic auth header")),
        Some(Some((basic_id, _))) if !id.is_empty() && id != basic_id => Err(TokenError::new(
            "invalid_request",
            "client_id in request body inconsistent with Authorization header",
        )),
        Some(Some(basic)) => Ok(basic),
    }
}

fn check_code(instance: &mut Instance, credentials: &Credentials, form: &Params) -> Result<i64, TokenError> {
    let unauthorized = |description| TokenError::new("unauthorized_client", description);
    let application = authenticate(instance, credentials, "unauthorized_client")?;
    let redirect_uri = form.text("redirect_uri");
    if !application.accepts_redirect(redirect_uri) {
        return Err(unauthorized("unexpected redirect URI"));
    }
    let code = instance.codes.get(form.text("code"));
    let grant = code.and_then(|code| Some((code, instance.grants.get(&code.grant)?)));
    let (code, grant) = grant.ok_or_else(|| unauthorized("client is not authorized"))?;
    if code.request.redirect_uri != redirect_uri {
        return Err(unauthorized("redirect_uri does not match the authorization request"));
    }
    let (method, challenge) = (&code.request.challenge_method, &code.request.challenge);
    if !tokens::pkce_matches(method, challenge, form.text("code_verifier")) {
        return Err(unauthorized("failed PKCE code challenge"));
    }
    if grant.application != application.id {
        return Err(TokenError::new("invalid_grant", "invalid grant"));
    }
    let grant = grant.id;
    instance.codes.remove(form.text("code"));
    Ok(grant)
}

fn check_refresh(instance: &Instance, credentials: &Credentials, form: &Params, now: i64) -> Result<i64, TokenError> {
    let application = authenticate(instance, credentials, "invalid_client")?;
    let Some(claims) = instance.key.verify(form.text("refresh_token"), now) else {
        return Err(TokenError::new("unauthorized_client", "unable to parse refresh token"));
    };
    if claims.tt != REFRESH {
        return Err(TokenError::new("unauthorized_client", "token is not a refresh token"));
    }
    let Some(grant) = instance.grants.get(&claims.gnt) else {
        return Err(TokenError::new("invalid_grant", "grant does not exist"));
    };
    if grant.application != application.id {
        let description = "refresh token was not issued to this client";
        return Err(TokenError::new("invalid_grant", description));
    }
    if claims.cnt != Some(grant.counter) {
        return Err(TokenError::new("unauthorized_client", "token was already used"));
    }
    Ok(grant.id)
}

/// The application of these credentials; a wrong secret has another error code at each grant type.
fn authenticate<'a>(
    instance: &'a Instance,
    (client_id, secret): &Credentials,
    wrong_secret: &'static str,
) -> Result<&'a Application, TokenError> {
    let Some(application) = instance.application(client_id) else {
        let description = format!("cannot load client with client id: '{client_id}'");
        return Err(TokenError::new("invalid_client", description));
    };
    if application.confidential && application.secret != *secret {
        return Err(TokenError::new(wrong_secret, "invalid client secret"));
    }
    Ok(application)
}

impl TokenError {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            error,
            description: description.into(),
        }
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        wire::json(StatusCode::BAD_REQUEST, &body)
    }
}
