//! The rest of the provider: discovery, keys, userinfo and introspection.

use http::StatusCode;
use serde_json::json;

use super::{
    state::State,
    wire::{self, Call, Reply},
};

/// `/.well-known/openid-configuration`
pub(super) fn discovery(state: &State) -> Reply {
    let at = |path: &str| format!("{}{path}", state.base_url);
    let body = json!({
        "issuer": state.base_url,
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

/// `/login/oauth/keys`: a symmetric key has nothing to publish but its kind.
pub(super) fn keys() -> Reply {
    wire::json(
        StatusCode::OK,
        &json!({ "keys": [{ "kty": "oct", "alg": "HS256", "use": "sig" }] }),
    )
}

/// `/login/oauth/userinfo`: for OAuth access tokens only.
pub(super) fn userinfo(state: &State, call: &Call, now: i64) -> Reply {
    let token = call
        .authorization()
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let grant = token.and_then(|(_, token)| state.grant_behind(token, now));
    let Some(user) = grant.and_then(|grant| state.user(grant.user)) else {
        return wire::unauthorized("Bearer");
    };
    let body = json!({
        "sub": user.id.to_string(),
        "name": user.full_name,
        "preferred_username": user.login,
        "email": user.email(),
        "picture": user.avatar_url(&state.base_url),
        "groups": state.organisations_of(user.id),
    });
    wire::json(StatusCode::OK, &body)
}

/// `/login/oauth/introspect` (RFC 7662), for a client by HTTP Basic. It tells neither expiry nor who the client may be.
pub(super) fn introspect(state: &State, call: &Call, now: i64) -> Reply {
    let client = call.basic().flatten().filter(|(id, secret)| {
        state
            .application(id)
            .is_some_and(|application| application.secret == *secret)
    });
    if client.is_none() {
        return wire::unauthorized("Basic");
    }
    let form = call.form();
    let grant = state
        .key
        .verify(form.text("token"), now)
        .and_then(|claims| state.grants.get(&claims.gnt));
    let found = grant.and_then(|grant| {
        let owner = state
            .applications
            .iter()
            .find(|application| application.id == grant.application)?;
        Some((grant, owner, state.user(grant.user)?))
    });
    let body = match found {
        Some((grant, application, user)) => json!({
            "active": true,
            "scope": grant.scope,
            "username": user.login,
            "iss": state.base_url,
            "aud": [application.client_id],
            "sub": user.id.to_string(),
        }),
        None => json!({ "active": false }),
    };
    wire::json(StatusCode::OK, &body)
}
