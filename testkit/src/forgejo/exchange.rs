//! `/login/oauth/access_token`: codes and refresh tokens in exchange for new tokens.
//!
//! Every error is HTTP 400, against RFC 6749 section 5.2, and the error codes are Forgejo's own
//! choice. While refresh tokens are single-use, one counter per grant enforces that: every exchange
//! raises it and so invalidates all earlier refresh tokens of that user and application.
//!
//! A request takes two steps, its checks and [`issue`], with the instance unlocked between them:
//! two requests at once can both pass the checks, and then only one of them raises the counter.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    instance::{Application, Grant, Instance, seconds},
    shared::Shared,
    tokens::{self, REFRESH},
    wire::{self, Params},
};

#[derive(Debug)]
struct Checked {
    grant: i64,
    /// The grant's counter at the check.
    counter: u64,
}

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
    let checked = if refresh == 1 {
        check_refresh(&shared.instance(), &credentials, &form, now)
    } else {
        check_code(&mut shared.instance(), &credentials, &form)
    };
    let window = shared.instance().token_window;
    if !window.is_zero() {
        sleep(window).await;
    }
    let mut instance = shared.instance();
    let issued = checked.and_then(|checked| issue(&mut instance, &checked, now));
    let counters = &mut instance.counters;
    if issued.is_ok() {
        counters.exchanges += exchange;
        counters.refreshes += refresh;
    } else {
        counters.exchange_refusals += exchange;
        counters.refresh_refusals += refresh;
    }
    Ok(wire::json(StatusCode::OK, &issued?))
}

/// Raises the counter and makes the tokens.
fn issue(instance: &mut Instance, checked: &Checked, now: i64) -> Result<Value, TokenError> {
    let single_use = instance.options.invalidate_refresh_tokens;
    let grant = instance.grants.get_mut(&checked.grant);
    let Some(grant) = grant.filter(|grant| !single_use || grant.counter == checked.counter) else {
        return Err(TokenError::new("invalid_grant", "cannot increase the grant counter"));
    };
    if single_use {
        grant.counter += 1;
    }
    let grant = grant.clone();
    let lifetime = instance.options.access_lifetime;
    let mut body = json!({
        "access_token": instance.access_token(grant.id, now),
        "token_type": "bearer",
        "expires_in": seconds(instance.advertised_lifetime.unwrap_or(lifetime)),
        "refresh_token": instance.refresh_token(grant.id, grant.counter, now),
    });
    if grant.scope.split(' ').any(|scope| scope == "openid") {
        body["id_token"] = json!(id_token(instance, &grant, now));
    }
    Ok(body)
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

fn check_code(instance: &mut Instance, credentials: &Credentials, form: &Params) -> Result<Checked, TokenError> {
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
    let checked = Checked::from(grant);
    instance.codes.remove(form.text("code"));
    Ok(checked)
}

fn check_refresh(
    instance: &Instance,
    credentials: &Credentials,
    form: &Params,
    now: i64,
) -> Result<Checked, TokenError> {
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
    if instance.options.invalidate_refresh_tokens && claims.cnt != Some(grant.counter) {
        return Err(TokenError::new("unauthorized_client", "token was already used"));
    }
    Ok(grant.into())
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

fn id_token(instance: &Instance, grant: &Grant, now: i64) -> String {
    instance.key.sign(&json!({
        "iss": instance.base_url,
        "sub": grant.user.to_string(),
        "aud": [instance.client_id_of(grant.application)],
        "exp": now.saturating_add(seconds(instance.options.access_lifetime)),
        "iat": now,
        "nonce": grant.nonce,
    }))
}

impl From<&Grant> for Checked {
    fn from(grant: &Grant) -> Self {
        Self {
            grant: grant.id,
            counter: grant.counter,
        }
    }
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
