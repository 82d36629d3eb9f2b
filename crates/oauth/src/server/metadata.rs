//! The two metadata documents: of the protected resource (RFC 9728) and of the authorization server
//! (RFC 8414).

use http::{Response, StatusCode};
use serde_json::json;

use super::{
    Body, response,
    scope::{REQUESTABLE, SCOPE},
};
use crate::{config::Settings, jwt};

/// The supported methods of client authentication.
const AUTH_METHODS: [&str; 4] = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"];

/// RFC 9728 section 2. Its scopes are those of the resource alone, without `offline_access` (MCP
/// 2026-07-28 authorization, "Refresh Tokens").
pub(super) fn resource(settings: &Settings) -> Response<Body> {
    let document = json!({
        "resource": settings.resource,
        "authorization_servers": [settings.issuer()],
        "scopes_supported": [SCOPE],
        "bearer_methods_supported": ["header"],
        "resource_name": "Forgejo MCP",
    });
    response::json(StatusCode::OK, &document)
}

/// RFC 8414 section 2. `documents`: whether clients can be described by documents. Clients that see
/// it do not register, so it requires that both `none` and `private_key_jwt` work for them.
pub(super) fn server(settings: &Settings, documents: bool) -> Response<Body> {
    let mut document = json!({
        "issuer": settings.issuer(),
        "authorization_endpoint": settings.endpoint("authorize"),
        "token_endpoint": settings.endpoint("token"),
        "revocation_endpoint": settings.endpoint("revoke"),
        "scopes_supported": REQUESTABLE,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
        "token_endpoint_auth_signing_alg_values_supported": jwt::ALGORITHMS,
        "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
        "revocation_endpoint_auth_signing_alg_values_supported": jwt::ALGORITHMS,
        "code_challenge_methods_supported": ["S256"],
        // RFC 9207 section 3.
        "authorization_response_iss_parameter_supported": true,
        // Client ID metadata document draft, section 5.
        "client_id_metadata_document_supported": documents,
    });
    if settings.allows_registration() {
        document["registration_endpoint"] = settings.endpoint("register").into();
    }
    response::json(StatusCode::OK, &document)
}

/// The URL of the metadata of the protected resource: the well-known part stands between host and
/// path (RFC 9728 section 3.1).
pub(super) fn resource_metadata_url(settings: &Settings) -> String {
    let (origin, prefix) = (&settings.origin, &settings.prefix);
    format!("{origin}/.well-known/oauth-protected-resource{prefix}/mcp")
}
