//! `/api/v1`: the few calls that a broker and its children make.
//!
//! A missing scope is 403 with Forgejo's sentence. A bad token is 401 without `WWW-Authenticate`,
//! and its message repeats the token: a program that logs such a message gives itself away.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{
    instance::{Instance, User},
    scopes::Access,
    shared::Shared,
    wire,
};

/// The caller, if the request has credentials. They must be valid even where none are needed.
struct ApiUser(Option<(User, Access)>);

struct ApiError {
    status: StatusCode,
    body: Value,
}

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/version", get(version))
        .route("/user", get(user))
        .route("/user/repos", get(repositories))
        .method_not_allowed_fallback(not_found)
        .fallback(not_found)
}

async fn version(_: ApiUser) -> Response {
    ok(&json!({ "version": "15.0.0+gitea-1.22.0" }))
}

async fn user(State(shared): State<Arc<Shared>>, api_user: ApiUser) -> Result<Response, ApiError> {
    let mut instance = shared.instance();
    let user = api_user.with_scopes(&instance, &["read:user"])?;
    let body = instance.user_json(&user);
    instance.counters.user_lookups.push(user.login);
    Ok(ok(&body))
}

async fn repositories(State(shared): State<Arc<Shared>>, api_user: ApiUser) -> Result<Response, ApiError> {
    let instance = shared.instance();
    let user = api_user.with_scopes(&instance, &["read:user", "read:repository"])?;
    Ok(ok(&instance.repositories_json(&user)))
}

async fn not_found(State(shared): State<Arc<Shared>>, _: ApiUser) -> ApiError {
    ApiError::not_found(&shared.instance())
}

fn ok(body: &Value) -> Response {
    wire::json(StatusCode::OK, body)
}

impl FromRequestParts<Arc<Shared>> for ApiUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let now = shared.now();
        let instance = shared.instance();
        let unauthorized = |text: &str| ApiError::new(&instance, StatusCode::UNAUTHORIZED, text);
        let (user, access) = match (wire::authorization(&parts.headers), wire::basic(&parts.headers)) {
            (_, Some(basic)) => {
                let user = basic.and_then(|(login, password)| instance.with_password(&login, &password).cloned());
                let user = user.ok_or_else(|| unauthorized("invalid username, password or token"))?;
                (user, Access::Everything)
            }
            (Some((scheme, token)), None) if ["bearer", "token"].contains(&scheme.to_lowercase().as_str()) => {
                let Some((user, grant)) = instance.user_behind(token, now) else {
                    return Err(unauthorized(&format!("access token does not exist [sha: {token}]")));
                };
                (user.clone(), Access::of_grant(&grant.scope))
            }
            (Some(_) | None, None) => return Ok(Self(None)),
        };
        if user.prohibited {
            let text = "This account is prohibited from signing in, please contact your site administrator.";
            // Forgejo writes no URL here.
            return Err(ApiError {
                status: StatusCode::FORBIDDEN,
                body: json!({ "message": text }),
            });
        }
        Ok(Self(Some((user, access))))
    }
}

impl ApiUser {
    fn with_scopes(self, instance: &Instance, required: &[&str]) -> Result<User, ApiError> {
        let missing = || ApiError::new(instance, StatusCode::UNAUTHORIZED, "token is required");
        let (user, access) = self.0.ok_or_else(missing)?;
        if access.allows(required) {
            return Ok(user);
        }
        let required = required.join(" ");
        let text = format!("token does not have at least one of required scope(s): [{required}]");
        Err(ApiError::new(instance, StatusCode::FORBIDDEN, &text))
    }
}

impl ApiError {
    fn new(instance: &Instance, status: StatusCode, message: &str) -> Self {
        let body = json!({ "message": message, "url": format!("{}/api/swagger", instance.base_url) });
        Self { status, body }
    }

    fn not_found(instance: &Instance) -> Self {
        Self::new(instance, StatusCode::NOT_FOUND, "The target couldn't be found.")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        wire::json(self.status, &self.body)
    }
}

impl Instance {
    fn user_json(&self, user: &User) -> Value {
        json!({
            "id": user.id,
            "login": user.login,
            "login_name": "",
            "full_name": user.full_name,
            "email": format!("{}@noreply.localhost", user.login.to_lowercase()),
            "avatar_url": format!("{}/avatars/{}", self.base_url, user.id),
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
        let repositories = self.repositories.iter().enumerate();
        let owned = repositories.filter(|(_, (owner, _))| *owner == user.id);
        let json = |(index, (_, name)): (usize, &(i64, String))| {
            json!({
                "id": index + 1,
                "name": name,
                "full_name": format!("{}/{name}", user.login),
                "owner": self.user_json(user),
                "private": true,
                "html_url": format!("{}/{}/{name}", self.base_url, user.login),
            })
        };
        owned.map(json).collect()
    }
}
