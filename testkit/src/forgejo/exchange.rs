//! `/login/oauth/access_token`: codes and refresh tokens against new tokens.
//!
//! Every error is HTTP 400, whatever RFC 6749 section 5.2 says, and the error codes are Forgejo's own choice. While
//! refresh tokens are single-use, one counter per grant makes them so: every exchange raises it, and with it all earlier
//! refresh tokens of that user and application are dead.
//!
//! A request is served in two steps, [`begin`] and [`finish`], with the state unlocked between them: two requests at once
//! can both pass the checks, and then only one of them raises the counter.

use http::StatusCode;
use serde_json::json;

use super::{
    state::{Application, Code, Grant, State, seconds},
    tokens::{self, REFRESH},
    wire::{self, Call, Params, Reply},
};

/// A request that passed its checks.
#[derive(Debug)]
pub(super) struct Pending {
    kind: Kind,
    grant: i64,
    /// The grant's counter when it was checked.
    counter: u64,
}

/// A refusal that has been counted: the answer to send.
pub(super) type Refused = Box<Reply>;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Code,
    Refresh,
}

struct Refusal {
    error: &'static str,
    description: String,
}

/// Checks a request; a code is used up by it.
pub(super) fn begin(state: &mut State, call: &Call, now: i64) -> Result<Pending, Refused> {
    let form = call.form();
    let credentials = match credentials(call, &form) {
        Ok(credentials) => credentials,
        Err(refusal) => return Err(Box::new(refusal.answer())),
    };
    match form.text("grant_type") {
        "authorization_code" => {
            check_code(state, &credentials, &form).map_err(|refusal| refuse(state, Kind::Code, &refusal))
        }
        "refresh_token" => {
            check_refresh(state, &credentials, &form, now).map_err(|refusal| refuse(state, Kind::Refresh, &refusal))
        }
        _ => {
            let text = "Only refresh_token or authorization_code grant type is supported";
            Err(Box::new(Refusal::new("unsupported_grant_type", text).answer()))
        }
    }
}

/// Raises the counter and makes the tokens.
pub(super) fn finish(state: &mut State, pending: &Pending, now: i64) -> Result<Reply, Refused> {
    let single_use = state.settings.invalidate_refresh_tokens;
    let Some(grant) = state
        .grants
        .get_mut(&pending.grant)
        .filter(|grant| !single_use || grant.counter == pending.counter)
    else {
        let refusal = Refusal::new("invalid_grant", "cannot increase the grant counter");
        return Err(refuse(state, pending.kind, &refusal));
    };
    if single_use {
        grant.counter += 1;
    }
    let grant = grant.clone();
    match pending.kind {
        Kind::Code => state.counters.exchanges += 1,
        Kind::Refresh => state.counters.refreshes += 1,
    }
    let mut body = json!({
        "access_token": state.access_token(grant.id, now),
        "token_type": "bearer",
        "expires_in": seconds(state.settings.told_lifetime.unwrap_or(state.settings.access_lifetime)),
        "refresh_token": state.refresh_token(grant.id, grant.counter, now),
    });
    if grant.scope.split(' ').any(|scope| scope == "openid") {
        body["id_token"] = json!(id_token(state, &grant, now));
    }
    Ok(wire::json(StatusCode::OK, &body))
}

/// Client id and secret from the body, and what is missing there from HTTP Basic.
fn credentials(call: &Call, form: &Params) -> Result<(String, String), Refusal> {
    let (id, secret) = (form.text("client_id"), form.text("client_secret"));
    if !id.is_empty() && !secret.is_empty() {
        return Ok((id.to_owned(), secret.to_owned()));
    }
    match call.basic() {
        None => Ok((id.to_owned(), secret.to_owned())),
        Some(None) => Err(Refusal::new("invalid_request", "cannot parse basic auth header")),
        Some(Some((basic_id, _))) if !id.is_empty() && id != basic_id => Err(Refusal::new(
            "invalid_request",
            "client_id in request body inconsistent with Authorization header",
        )),
        Some(Some(basic)) => Ok(basic),
    }
}

fn check_code(state: &mut State, (client_id, secret): &(String, String), form: &Params) -> Result<Pending, Refusal> {
    let application = application(state, client_id)?;
    if application.confidential && application.secret != *secret {
        return Err(Refusal::new("unauthorized_client", "invalid client secret"));
    }
    let redirect_uri = form.text("redirect_uri");
    if !application.accepts_redirect(redirect_uri) {
        return Err(Refusal::new("unauthorized_client", "unexpected redirect URI"));
    }
    let not_authorized = || Refusal::new("unauthorized_client", "client is not authorized");
    let code: &Code = state.codes.get(form.text("code")).ok_or_else(not_authorized)?;
    let grant = state.grants.get(&code.grant).ok_or_else(not_authorized)?;
    if code.redirect_uri != redirect_uri {
        let text = "redirect_uri does not match the authorization request";
        return Err(Refusal::new("unauthorized_client", text));
    }
    if !tokens::pkce_holds(&code.challenge_method, &code.challenge, form.text("code_verifier")) {
        return Err(Refusal::new("unauthorized_client", "failed PKCE code challenge"));
    }
    if grant.application != application.id {
        return Err(Refusal::new("invalid_grant", "invalid grant"));
    }
    let pending = Pending {
        kind: Kind::Code,
        grant: grant.id,
        counter: grant.counter,
    };
    state.codes.remove(form.text("code"));
    Ok(pending)
}

fn check_refresh(
    state: &State,
    (client_id, secret): &(String, String),
    form: &Params,
    now: i64,
) -> Result<Pending, Refusal> {
    let application = application(state, client_id)?;
    if application.confidential && application.secret != *secret {
        return Err(Refusal::new("invalid_client", "invalid client secret"));
    }
    let Some(claims) = state.key.verify(form.text("refresh_token"), now) else {
        return Err(Refusal::new("unauthorized_client", "unable to parse refresh token"));
    };
    if claims.tt != REFRESH {
        return Err(Refusal::new("unauthorized_client", "token is not a refresh token"));
    }
    let Some(grant) = state.grants.get(&claims.gnt) else {
        return Err(Refusal::new("invalid_grant", "grant does not exist"));
    };
    if grant.application != application.id {
        return Err(Refusal::new(
            "invalid_grant",
            "refresh token was not issued to this client",
        ));
    }
    if state.settings.invalidate_refresh_tokens && claims.cnt != Some(grant.counter) {
        return Err(Refusal::new("unauthorized_client", "token was already used"));
    }
    Ok(Pending {
        kind: Kind::Refresh,
        grant: grant.id,
        counter: grant.counter,
    })
}

fn application<'a>(state: &'a State, client_id: &str) -> Result<&'a Application, Refusal> {
    state.application(client_id).ok_or_else(|| Refusal {
        error: "invalid_client",
        description: format!("cannot load client with client id: '{client_id}'"),
    })
}

fn refuse(state: &mut State, kind: Kind, refusal: &Refusal) -> Refused {
    match kind {
        Kind::Code => state.counters.exchange_refusals += 1,
        Kind::Refresh => state.counters.refresh_refusals += 1,
    }
    Box::new(refusal.answer())
}

fn id_token(state: &State, grant: &Grant, now: i64) -> String {
    let audience = state
        .applications
        .iter()
        .find(|application| application.id == grant.application)
        .map(|application| application.client_id.clone());
    state.key.sign_json(&json!({
        "iss": state.base_url,
        "sub": grant.user.to_string(),
        "aud": [audience],
        "exp": now.saturating_add(seconds(state.settings.access_lifetime)),
        "iat": now,
        "nonce": grant.nonce,
    }))
}

impl Refusal {
    fn new(error: &'static str, description: &str) -> Self {
        Self {
            error,
            description: description.to_owned(),
        }
    }

    fn answer(&self) -> Reply {
        let body = json!({ "error": self.error, "error_description": self.description });
        wire::json(StatusCode::BAD_REQUEST, &body)
    }
}
