//! `/api/v1`: the few calls that a broker and its children make.
//!
//! A scope that is missing is 403 with Forgejo's sentence; a token that is bad is 401 without `WWW-Authenticate`, and its
//! message repeats the token, so that whoever logs such a message is found out.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    scopes::Access,
    state::{State, User},
    wire::{self, Call, Reply},
};

struct Caller {
    user: User,
    access: Access,
}

/// Serves a call; `path` is what follows `/api/v1`.
pub(super) fn serve(state: &mut State, call: &Call, path: &str, now: i64) -> Reply {
    match route(state, call, path, now) {
        Ok(reply) => reply,
        Err(refusal) => *refusal,
    }
}

fn route(state: &mut State, call: &Call, path: &str, now: i64) -> Result<Reply, Box<Reply>> {
    let caller = authenticate(state, call, now)?;
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (call.method(), segments.as_slice()) {
        (&Method::GET, ["version"]) => Ok(ok(&json!({ "version": state.settings.version }))),
        (&Method::GET, ["user"]) => {
            let user = allowed(state, caller, &["read:user"])?;
            let body = state.user_json(&user);
            state.counters.users_asked.push(user.login);
            Ok(ok(&body))
        }
        (&Method::GET, ["user", "orgs"]) => {
            let user = allowed(state, caller, &["read:user", "read:organization"])?;
            let organisations = state.organisations_of(user.id);
            let body: Vec<Value> = organisations.iter().map(|name| organisation_json(name)).collect();
            Ok(ok(&json!(body)))
        }
        (&Method::GET, ["user", "repos"]) => {
            let user = allowed(state, caller, &["read:user", "read:repository"])?;
            Ok(ok(&state.repositories_json(&user)))
        }
        (&Method::GET, ["orgs", organisation, "members", login]) => {
            allowed(state, caller, &["read:organization"])?;
            let is_member = state
                .user_named(login)
                .zip(state.organisations.get(*organisation))
                .is_some_and(|(user, members)| members.contains(&user.id));
            if is_member {
                Ok(wire::empty(StatusCode::NO_CONTENT))
            } else {
                Err(not_found(state))
            }
        }
        (&Method::POST, ["user", "applications", "oauth2"]) => {
            allowed(state, caller, &["write:user"])?;
            register(state, call)
        }
        _ => Err(not_found(state)),
    }
}

/// Who calls. Credentials that are there must be good, even where none are needed.
fn authenticate(state: &State, call: &Call, now: i64) -> Result<Option<Caller>, Box<Reply>> {
    let caller = match (call.authorization(), call.basic()) {
        (_, Some(basic)) => {
            let user = basic.and_then(|(login, password)| state.with_password(&login, &password).cloned());
            let text = "invalid username, password or token";
            let user = user.ok_or_else(|| refusal(state, StatusCode::UNAUTHORIZED, text))?;
            Caller {
                user,
                access: Access::Everything,
            }
        }
        (Some((scheme, token)), None) if ["bearer", "token"].contains(&scheme.to_lowercase().as_str()) => {
            let grant = state.grant_behind(token, now);
            let known = grant.and_then(|grant| Some((state.user(grant.user)?, grant)));
            let (user, grant) = known.ok_or_else(|| {
                let text = if state.settings.echo_tokens {
                    format!("access token does not exist [sha: {token}]")
                } else {
                    "invalid username, password or token".to_owned()
                };
                refusal(state, StatusCode::UNAUTHORIZED, &text)
            })?;
            Caller {
                user: user.clone(),
                access: Access::of_grant(&grant.scope),
            }
        }
        (Some(_), None) | (None, None) => return Ok(None),
    };
    if caller.user.prohibited {
        let text = "This account is prohibited from signing in, please contact your site administrator.";
        return Err(refusal(state, StatusCode::FORBIDDEN, text));
    }
    Ok(Some(caller))
}

fn allowed(state: &State, caller: Option<Caller>, required: &[&str]) -> Result<User, Box<Reply>> {
    let caller = caller.ok_or_else(|| refusal(state, StatusCode::UNAUTHORIZED, "token is required"))?;
    if caller.access.allows(required) {
        return Ok(caller.user);
    }
    let text = format!(
        "token does not have at least one of required scope(s): [{}]",
        required.join(" ")
    );
    Err(refusal(state, StatusCode::FORBIDDEN, &text))
}

fn register(state: &mut State, call: &Call) -> Result<Reply, Box<Reply>> {
    let wanted = call.json().unwrap_or_default();
    let name = wanted["name"].as_str().unwrap_or("");
    let uris = wanted["redirect_uris"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let uris: Vec<String> = uris.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if name.is_empty() || uris.is_empty() {
        return Err(refusal(state, StatusCode::UNPROCESSABLE_ENTITY, "[Name]: Required"));
    }
    let confidential = wanted["confidential_client"].as_bool().unwrap_or(false);
    let application = state.add_application(name, &uris, confidential);
    let body = json!({
        "id": application.id,
        "name": application.name,
        "client_id": application.client_id,
        "client_secret": application.secret,
        "confidential_client": application.confidential,
        "redirect_uris": application.redirect_uris,
        "created": "2026-01-01T00:00:00Z",
    });
    Ok(wire::json(StatusCode::CREATED, &body))
}

fn ok(body: &Value) -> Reply {
    wire::json(StatusCode::OK, body)
}

fn not_found(state: &State) -> Box<Reply> {
    refusal(state, StatusCode::NOT_FOUND, "The target couldn't be found.")
}

fn refusal(state: &State, status: StatusCode, text: &str) -> Box<Reply> {
    let body = json!({ "message": text, "url": format!("{}/api/swagger", state.base_url) });
    Box::new(wire::json(status, &body))
}

fn organisation_json(name: &str) -> Value {
    json!({ "name": name, "username": name, "full_name": name, "visibility": "public" })
}

impl State {
    /// The organisations that a user is a member of.
    pub(super) fn organisations_of(&self, user: i64) -> Vec<String> {
        let of_user = self.organisations.iter().filter(|(_, members)| members.contains(&user));
        of_user.map(|(name, _)| name.clone()).collect()
    }

    fn user_json(&self, user: &User) -> Value {
        json!({
            "id": user.id,
            "login": user.login,
            "login_name": "",
            "full_name": user.full_name,
            "email": user.email(),
            "avatar_url": user.avatar_url(&self.base_url),
            "html_url": format!("{}/{}", self.base_url, user.login),
            "username": user.login,
            "is_admin": false,
            "active": true,
            "prohibit_login": user.prohibited,
            "restricted": false,
            "visibility": "public",
            "created": "2026-01-01T00:00:00Z",
        })
    }

    fn repositories_json(&self, user: &User) -> Value {
        let owned = self
            .repositories
            .iter()
            .enumerate()
            .filter(|(_, (owner, _))| *owner == user.id);
        let list: Vec<Value> = owned
            .map(|(index, (_, name))| {
                json!({
                    "id": index + 1,
                    "name": name,
                    "full_name": format!("{}/{name}", user.login),
                    "owner": self.user_json(user),
                    "private": true,
                    "html_url": format!("{}/{}/{name}", self.base_url, user.login),
                })
            })
            .collect();
        json!(list)
    }
}

impl User {
    pub(super) fn email(&self) -> String {
        format!("{}@noreply.localhost", self.login.to_lowercase())
    }

    pub(super) fn avatar_url(&self, base_url: &str) -> String {
        format!("{base_url}/avatars/{}", self.id)
    }
}
