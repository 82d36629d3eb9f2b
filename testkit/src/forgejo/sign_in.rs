//! Browser sessions: the sign-in page, its cookie, and the way back to the page that the visitor
//! wanted.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, request::Parts};
use url::form_urlencoded;

use super::{
    instance::{BrowserSession, Instance, User},
    pages,
    shared::Shared,
    tokens,
    wire::{self, Params},
};

/// A visitor with a session.
pub(super) struct SignedIn {
    pub(super) session: String,
    pub(super) user: User,
}

const SESSION: &str = "session";
const REDIRECT_TO: &str = "redirect_to";

pub(super) async fn login(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    match visitor(&shared.instance(), &headers) {
        Some(_) => redirect_back(&headers),
        None => wire::html(StatusCode::OK, pages::login(None)),
    }
}

pub(super) async fn submit(State(shared): State<Arc<Shared>>, headers: HeaderMap, form: Params) -> Response {
    let mut instance = shared.instance();
    let Some(user) = instance.with_password(form.text("user_name"), form.text("password")) else {
        let complaint = Some("Username or password is incorrect.");
        return wire::html(StatusCode::OK, pages::login(complaint));
    };
    if user.prohibited {
        return prohibited();
    }
    let session = BrowserSession {
        user: user.id,
        consent: None,
    };
    let id = tokens::new_session_id();
    instance.sessions.insert(id.clone(), session);
    wire::with_cookie(redirect_back(&headers), SESSION, &id)
}

/// `/`, the page of a visitor who wanted no other.
pub(super) async fn home(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let page = match visitor(&shared.instance(), &headers) {
        Some((_, user)) => pages::message("Dashboard", &user.login),
        None => pages::message("Forgejo", "Not signed in."),
    };
    wire::html(StatusCode::OK, page)
}

/// Without a session the answer is a redirect to the sign-in page with a cookie that holds the
/// wanted page.
impl FromRequestParts<Arc<Shared>> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        let instance = shared.instance();
        match visitor(&instance, &parts.headers) {
            Some((_, user)) if user.prohibited => Err(prohibited()),
            Some((session, user)) => Ok(Self {
                session: session.to_owned(),
                user: user.clone(),
            }),
            None => {
                let wanted = parts.uri.path_and_query().map_or("/", |target| target.as_str());
                let wanted: String = form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
                let response = wire::see_other("/user/login");
                Err(wire::with_cookie(response, REDIRECT_TO, &wanted))
            }
        }
    }
}

fn redirect_back(headers: &HeaderMap) -> Response {
    let wanted = wire::cookie(headers, REDIRECT_TO).unwrap_or_default();
    let wanted = form_urlencoded::parse(wanted.as_bytes()).next();
    // Only a path on this host is followed.
    let target = wanted.filter(|(target, _)| target.starts_with('/') && !target.starts_with("//"));
    let response = wire::see_other(target.as_ref().map_or("/", |(target, _)| target));
    wire::without_cookie(response, REDIRECT_TO)
}

fn visitor<'a>(instance: &'a Instance, headers: &'a HeaderMap) -> Option<(&'a str, &'a User)> {
    let id = wire::cookie(headers, SESSION)?;
    Some((id, instance.user(instance.sessions.get(id)?.user)?))
}

fn prohibited() -> Response {
    let text = "Your account is prohibited from signing in, please contact your site administrator.";
    wire::html(StatusCode::FORBIDDEN, pages::message("Sign in prohibited", text))
}
