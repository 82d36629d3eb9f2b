//! Browser sessions: the sign-in page, its cookie, and the way back to where the visitor wanted to go.

use http::{Method, StatusCode};
use url::form_urlencoded;

use super::{
    pages,
    state::{Session, State, User},
    tokens,
    wire::{self, Call, Reply},
};

const SESSION: &str = "session";
const REDIRECT_TO: &str = "redirect_to";

/// `/user/login`
pub(super) fn login(state: &mut State, call: &Call) -> Reply {
    if call.method() == Method::POST {
        return submit(state, call);
    }
    match visitor(state, call) {
        Some(_) => back(call),
        None => wire::html(StatusCode::OK, pages::login(None)),
    }
}

/// `/`, where a visitor lands who wanted to go nowhere else.
pub(super) fn home(state: &State, call: &Call) -> Reply {
    match visitor(state, call) {
        Some((_, user)) => wire::html(StatusCode::OK, pages::message("Dashboard", &user.login)),
        None => wire::html(StatusCode::OK, pages::message("Forgejo", "Nobody is signed in.")),
    }
}

/// The visitor's session and user, or the answer for who must not or cannot go on: off to the sign-in page, with a
/// cookie that remembers what was asked for.
pub(super) fn signed_in(state: &State, call: &Call) -> Result<(String, User), Box<Reply>> {
    match visitor(state, call) {
        Some((_, user)) if user.prohibited => Err(Box::new(prohibited())),
        Some((session, user)) => Ok((session, user.clone())),
        None => {
            let wanted: String = form_urlencoded::byte_serialize(call.target().as_bytes()).collect();
            Err(Box::new(wire::with_cookie(
                wire::see_other("/user/login"),
                REDIRECT_TO,
                &wanted,
            )))
        }
    }
}

fn submit(state: &mut State, call: &Call) -> Reply {
    let form = call.form();
    let Some(user) = state.with_password(form.text("user_name"), form.text("password")) else {
        let complaint = Some("Username or password is incorrect.");
        return wire::html(StatusCode::OK, pages::login(complaint));
    };
    if user.prohibited {
        return prohibited();
    }
    let session = Session {
        user: user.id,
        consent: None,
    };
    let id = tokens::new_session_id();
    state.sessions.insert(id.clone(), session);
    wire::with_cookie(back(call), SESSION, &id)
}

fn back(call: &Call) -> Reply {
    let wanted = call.cookie(REDIRECT_TO).unwrap_or_default();
    let wanted = form_urlencoded::parse(wanted.as_bytes())
        .next()
        .map_or(String::new(), |(target, _)| target.into_owned());
    // Only a path on this host is followed.
    let target = if wanted.starts_with('/') && !wanted.starts_with("//") {
        wanted.as_str()
    } else {
        "/"
    };
    wire::without_cookie(wire::see_other(target), REDIRECT_TO)
}

fn visitor<'a>(state: &'a State, call: &Call) -> Option<(String, &'a User)> {
    let id = call.cookie(SESSION)?;
    let user = state.user(state.sessions.get(&id)?.user)?;
    Some((id, user))
}

fn prohibited() -> Reply {
    let text = "Your account is prohibited from signing in, please contact your site administrator.";
    wire::html(StatusCode::FORBIDDEN, pages::message("Sign in prohibited", text))
}
