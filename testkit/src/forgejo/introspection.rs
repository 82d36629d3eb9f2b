//! Introspection of tokens.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    shared::Shared,
    wire::{self, Params},
};

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
    let Some((grant, user)) = found else {
        // Forgejo 15 looks at the token as if it were the caller's, and does not challenge.
        return wire::text(StatusCode::UNAUTHORIZED, "");
    };
    let body = json!({
        "active": true,
        "scope": grant.scope,
        "username": user.login,
        "iss": instance.base_url,
        "aud": [instance.client_id_of(grant.application)],
        "sub": user.id.to_string(),
    });
    wire::json(StatusCode::OK, &body)
}
