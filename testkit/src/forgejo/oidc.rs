//! The rest of the provider: discovery, keys, userinfo and introspection.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    shared::Shared,
    wire::{self, Params},
};

pub(super) async fn discovery(State(shared): State<Arc<Shared>>) -> Response {
    let base_url = shared.instance().base_url.clone();
    let at = |path: &str| format!("{base_url}{path}");
    let body = json!({
        "issuer": base_url,
        "authorization_endpoint": at("/login/oauth/authorize"),
        "token_endpoint": at("/login/oauth/access_token"),
        "jwks_uri": at("/login/oauth/keys"),
        "userinfo_endpoint": at("/login/oauth/userinfo"),
        "introspection_endpoint": at("/login/oauth/introspect"),
        "response_types_supported": ["code", "id_token"],
        "id_token_signing_alg_values_supported": ["HS256"],
        "subject_types_supported": ["public"],
        "scopes_supported": ["openid", "profile", "email", "groups"],
        "claims_supported": ["aud", "exp", "iat", "iss", "sub", "name", "preferred_username", "email", "groups"],
        "code_challenge_methods_supported": ["plain", "S256"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
    });
    wire::json(StatusCode::OK, &body)
}

/// `/login/oauth/keys`: of a symmetric key only its kind can be published.
pub(super) async fn keys() -> Response {
    let body = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "use": "sig" }] });
    wire::json(StatusCode::OK, &body)
}

/// `/login/oauth/userinfo`: for OAuth access tokens only.
pub(super) async fn userinfo(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let now = shared.now();
    let instance = shared.instance();
    let credentials = wire::authorization(&headers);
    let token = credentials.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((user, _)) = token.and_then(|(_, token)| instance.user_behind(token, now)) else {
        return wire::unauthorized("Bearer");
    };
    let body = json!({
        "sub": user.id.to_string(),
        "name": user.full_name,
        "preferred_username": user.login,
        "email": user.email(),
        "picture": user.avatar_url(&instance.base_url),
        "groups": instance.organizations_of(user.id),
    });
    wire::json(StatusCode::OK, &body)
}

/// `/login/oauth/introspect` (RFC 7662), for a client by HTTP Basic. The answer holds no expiry.
pub(super) async fn introspect(State(shared): State<Arc<Shared>>, headers: HeaderMap, form: Params) -> Response {
    let now = shared.now();
    let instance = shared.instance();
    let is_client = |(id, secret): &(String, String)| {
        let application = instance.application(id);
        application.is_some_and(|application| application.secret == *secret)
    };
    if !wire::basic(&headers).flatten().as_ref().is_some_and(is_client) {
        return wire::unauthorized("Basic");
    }
    let claims = instance.key.verify(form.text("token"), now);
    let grant = claims.and_then(|claims| instance.grants.get(&claims.gnt));
    let found = grant.and_then(|grant| Some((grant, instance.user(grant.user)?)));
    let body = match found {
        Some((grant, user)) => json!({
            "active": true,
            "scope": grant.scope,
            "username": user.login,
            "iss": instance.base_url,
            "aud": [instance.client_id_of(grant.application)],
            "sub": user.id.to_string(),
        }),
        None => json!({ "active": false }),
    };
    wire::json(StatusCode::OK, &body)
}
