//! `/login/oauth/authorize` and `/login/oauth/grant`: from an authorization request to a code.
//!
//! It keeps three oddities. Forgejo skips consent for a confidential client with a grant, whatever
//! scope it requests now. The open consent is one slot per browser session, so that two tabs
//! overwrite each other. A public client that requests another scope than the grant's passes
//! consent and then fails. `prompt`, `resource` and `login_hint` are ignored.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use url::Url;

use super::{
    instance::{Application, AuthorizationRequest, Code, Instance, User},
    pages,
    shared::Shared,
    sign_in::SignedIn,
    tokens,
    wire::{self, Params},
};

pub(super) async fn authorize(
    State(shared): State<Arc<Shared>>,
    SignedIn { session, user }: SignedIn,
    request: Params,
) -> Response {
    let mut instance = shared.instance();
    let Some(application) = instance.application(request.text("client_id")).cloned() else {
        return error_page("Client ID not registered");
    };
    if !application.accepts_redirect(request.text("redirect_uri")) {
        return error_page("Unregistered Redirect URI");
    }
    match check(&application, &request) {
        Ok(()) => grant_or_ask(&mut instance, &session, &user, &application, &request),
        Err((error, description)) => reject(&request, error, description),
    }
}

pub(super) async fn grant(
    State(shared): State<Arc<Shared>>,
    SignedIn { session, user }: SignedIn,
    form: Params,
) -> Response {
    let mut instance = shared.instance();
    let consent = instance
        .sessions
        .get(&session)
        .and_then(|session| session.consent.clone());
    let Some(consent) = consent.filter(|consent| {
        consent.client_id == form.text("client_id")
            && consent.redirect_uri == form.text("redirect_uri")
            && consent.state == form.text("state")
    }) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if form.text("granted") != "true" {
        return reject(&form, "access_denied", "the request is denied");
    }
    let Some(application) = instance
        .application(&consent.client_id)
        .map(|application| application.id)
    else {
        return reject(&form, "unauthorized_client", "cannot find application");
    };
    let grant = match instance.grant_of(user.id, application) {
        None => instance.add_grant(user.id, application, form.text("scope")),
        Some(grant) if grant.scope == form.text("scope") => grant.id,
        Some(_) => return reject(&form, "server_error", "a grant exists with different scope"),
    };
    issue(&mut instance, grant, consent)
}

fn check(application: &Application, request: &Params) -> Result<(), (&'static str, &'static str)> {
    if request.text("response_type") != "code" {
        return Err(("unsupported_response_type", "Only code response type is supported."));
    }
    match request.text("code_challenge_method") {
        "S256" | "plain" => Ok(()),
        "" if application.confidential => Ok(()),
        "" => Err(("invalid_request", "PKCE is required for public clients")),
        _ => Err(("invalid_request", "unsupported code challenge method")),
    }
}

fn grant_or_ask(
    instance: &mut Instance,
    session: &str,
    user: &User,
    application: &Application,
    request: &Params,
) -> Response {
    let text = |name| request.text(name).to_owned();
    let wanted = AuthorizationRequest {
        client_id: application.client_id.clone(),
        redirect_uri: text("redirect_uri"),
        state: text("state"),
        challenge: text("code_challenge"),
        challenge_method: text("code_challenge_method"),
    };
    let grant = instance.grant_of(user.id, application.id).map(|grant| grant.id);
    if let (true, Some(grant)) = (application.confidential, grant) {
        return issue(instance, grant, wanted);
    }
    if let Some(session) = instance.sessions.get_mut(session) {
        session.consent = Some(wanted);
    }
    wire::html(StatusCode::OK, pages::grant(application, user, request))
}

fn issue(instance: &mut Instance, grant: i64, request: AuthorizationRequest) -> Response {
    let code = tokens::new_code();
    let response = redirect(&request.redirect_uri, &[("code", &code), ("state", &request.state)]);
    instance.codes.insert(code, Code { grant, request });
    response
}

fn reject(request: &Params, error: &str, description: &str) -> Response {
    let answer = [
        ("error", error),
        ("error_description", description),
        ("state", request.text("state")),
    ];
    redirect(request.text("redirect_uri"), &answer)
}

/// Back to the client; empty parameters are left out.
fn redirect(uri: &str, answer: &[(&str, &str)]) -> Response {
    let Ok(mut target) = Url::parse(uri) else {
        return error_page("Unregistered Redirect URI");
    };
    let answer = answer.iter().filter(|(_, value)| !value.is_empty());
    target.query_pairs_mut().extend_pairs(answer);
    wire::see_other(target.as_str())
}

fn error_page(text: &str) -> Response {
    wire::html(StatusCode::BAD_REQUEST, pages::message("Authorization failed", text))
}
