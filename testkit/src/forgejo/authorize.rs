//! `/login/oauth/authorize` and `/login/oauth/grant`: from a request for authorization to a code.
//!
//! Oddities kept: consent is skipped for a confidential client that has a grant, whatever scope it asks for now; the
//! open consent is one slot per browser session, so that two tabs clobber each other; a public client that asks for
//! another scope than the grant's goes through consent and then fails. `prompt`, `resource` and `login_hint` are ignored.

use http::{Method, StatusCode};
use url::Url;

use super::{
    pages, signin,
    state::{Application, Code, Consent, State, User},
    tokens,
    wire::{self, Call, Params, Reply},
};

/// `/login/oauth/authorize`
pub(super) fn authorize(state: &mut State, call: &Call) -> Reply {
    let (session, user) = match signin::signed_in(state, call) {
        Ok(signed_in) => signed_in,
        Err(answer) => return *answer,
    };
    let asked = if call.method() == Method::POST {
        call.form()
    } else {
        call.query()
    };
    let Some(application) = state.application(asked.text("client_id")).cloned() else {
        return error_page("Client ID not registered");
    };
    if !application.accepts_redirect(asked.text("redirect_uri")) {
        return error_page("Unregistered Redirect URI");
    }
    match check(&application, &asked) {
        Ok(()) => grant_or_ask(state, &session, &user, &application, &asked),
        Err((error, description)) => refuse(&asked, error, description),
    }
}

/// `/login/oauth/grant`: the consent page, submitted.
pub(super) fn grant(state: &mut State, call: &Call) -> Reply {
    let (session, user) = match signin::signed_in(state, call) {
        Ok(signed_in) => signed_in,
        Err(answer) => return *answer,
    };
    let form = call.form();
    let consent = state.sessions.get(&session).and_then(|session| session.consent.clone());
    let Some(consent) = consent.filter(|consent| {
        consent.client_id == form.text("client_id")
            && consent.redirect_uri == form.text("redirect_uri")
            && consent.state == form.text("state")
    }) else {
        return wire::empty(StatusCode::BAD_REQUEST);
    };
    if form.text("granted") != "true" {
        return refuse(&form, "access_denied", "the request is denied");
    }
    let Some(application) = state.application(&consent.client_id).map(|application| application.id) else {
        return refuse(&form, "unauthorized_client", "cannot find application");
    };
    let grant = match state.grant_of(user.id, application) {
        None => state.add_grant(user.id, application, form.text("scope"), form.text("nonce")),
        Some(grant) if grant.scope == form.text("scope") => grant.id,
        Some(_) => return refuse(&form, "server_error", "a grant exists with different scope"),
    };
    let code = Code {
        grant,
        redirect_uri: consent.redirect_uri,
        challenge: consent.challenge,
        challenge_method: consent.challenge_method,
    };
    hand_out(state, code, &consent.state)
}

/// The checks whose failure goes back to the client.
fn check(application: &Application, asked: &Params) -> Result<(), (&'static str, &'static str)> {
    if asked.text("response_type") != "code" {
        return Err(("unsupported_response_type", "Only code response type is supported."));
    }
    match asked.text("code_challenge_method") {
        "S256" | "plain" => Ok(()),
        "" if application.confidential => Ok(()),
        "" => Err(("invalid_request", "PKCE is required for public clients")),
        _ => Err(("invalid_request", "unsupported code challenge method")),
    }
}

fn grant_or_ask(state: &mut State, session: &str, user: &User, application: &Application, asked: &Params) -> Reply {
    let grant = state.grant_of(user.id, application.id).map(|grant| grant.id);
    if let (true, Some(grant)) = (application.confidential, grant) {
        if let Some(grant) = state.grants.get_mut(&grant)
            && !asked.text("nonce").is_empty()
        {
            grant.nonce = asked.text("nonce").to_owned();
        }
        let code = Code {
            grant,
            redirect_uri: asked.text("redirect_uri").to_owned(),
            challenge: asked.text("code_challenge").to_owned(),
            challenge_method: asked.text("code_challenge_method").to_owned(),
        };
        return hand_out(state, code, asked.text("state"));
    }
    if let Some(session) = state.sessions.get_mut(session) {
        session.consent = Some(Consent {
            client_id: application.client_id.clone(),
            redirect_uri: asked.text("redirect_uri").to_owned(),
            state: asked.text("state").to_owned(),
            challenge: asked.text("code_challenge").to_owned(),
            challenge_method: asked.text("code_challenge_method").to_owned(),
        });
    }
    wire::html(StatusCode::OK, pages::grant(application, user, asked))
}

fn hand_out(state: &mut State, code: Code, client_state: &str) -> Reply {
    let name = tokens::new_code();
    let redirect_uri = code.redirect_uri.clone();
    state.codes.insert(name.clone(), code);
    redirect(&redirect_uri, &[("code", &name), ("state", client_state)])
}

fn refuse(asked: &Params, error: &str, description: &str) -> Reply {
    let answer = [
        ("error", error),
        ("error_description", description),
        ("state", asked.text("state")),
    ];
    redirect(asked.text("redirect_uri"), &answer)
}

/// Back to the client; empty parameters are left out.
fn redirect(uri: &str, answer: &[(&str, &str)]) -> Reply {
    let Ok(mut target) = Url::parse(uri) else {
        return error_page("Unregistered Redirect URI");
    };
    target
        .query_pairs_mut()
        .extend_pairs(answer.iter().filter(|(_, value)| !value.is_empty()));
    wire::see_other(target.as_str())
}

fn error_page(text: &str) -> Reply {
    wire::html(StatusCode::BAD_REQUEST, pages::message("Authorization failed", text))
}
