//! Browser sessions: the sign-in page, its cookie, and the way back to the page that the visitor
//! wanted.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode, Uri};
use url::form_urlencoded;

use super::{
    instance::{BrowserSession, Instance, User},
    pages,
    shared::Shared,
    tokens,
    wire::{self, Params},
};

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

/// The visitor's session and user, or a redirect to the sign-in page with a cookie that holds the
/// wanted page.
pub(super) fn signed_in(instance: &Instance, headers: &HeaderMap, uri: &Uri) -> Result<(String, User), Box<Response>> {
    match visitor(instance, headers) {
        Some((_, user)) if user.prohibited => Err(Box::new(prohibited())),
        Some((session, user)) => Ok((session.to_owned(), user.clone())),
        None => {
            let wanted = uri.path_and_query().map_or("/", |target| target.as_str());
            let wanted: String = form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
            let response = wire::see_other("/user/login");
            Err(Box::new(wire::with_cookie(response, REDIRECT_TO, &wanted)))
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
