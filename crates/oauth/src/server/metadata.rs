//! The two metadata documents: of the protected resource (RFC 9728) and of the authorization server (RFC 8414).

use http::{Response, StatusCode};
use serde::Serialize;

use super::{Body, response, scope::SCOPE};
use crate::{config::Settings, jwt};

/// The supported methods of client authentication.
const AUTH_METHODS: [&str; 4] = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"];

/// RFC 9728 section 2.
#[derive(Serialize)]
struct ResourceMetadata<'a> {
    resource: &'a str,
    authorization_servers: [&'a str; 1],
    scopes_supported: [&'a str; 1],
    bearer_methods_supported: [&'a str; 1],
    resource_name: &'a str,
}

/// RFC 8414 section 2.
#[derive(Serialize)]
struct ServerMetadata<'a> {
    issuer: &'a str,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_endpoint: Option<String>,
    revocation_endpoint: String,
    scopes_supported: [&'a str; 1],
    response_types_supported: [&'a str; 1],
    response_modes_supported: [&'a str; 1],
    grant_types_supported: [&'a str; 2],
    token_endpoint_auth_methods_supported: [&'a str; 4],
    token_endpoint_auth_signing_alg_values_supported: [&'a str; 2],
    revocation_endpoint_auth_methods_supported: [&'a str; 4],
    revocation_endpoint_auth_signing_alg_values_supported: [&'a str; 2],
    code_challenge_methods_supported: [&'a str; 1],
    // RFC 9207 section 3.
    authorization_response_iss_parameter_supported: bool,
    // Client ID metadata document draft, section 5.
    client_id_metadata_document_supported: bool,
}

pub(super) fn resource(settings: &Settings) -> Response<Body> {
    let document = ResourceMetadata {
        resource: &settings.resource,
        authorization_servers: [settings.issuer()],
        scopes_supported: [SCOPE],
        bearer_methods_supported: ["header"],
        resource_name: "Forgejo MCP",
    };
    response::json(StatusCode::OK, &document)
}

/// `documents`: whether clients can be described by documents. Clients that see it do not register, so it requires that
/// both `none` and `private_key_jwt` work for them.
pub(super) fn server(settings: &Settings, documents: bool) -> Response<Body> {
    let document = ServerMetadata {
        issuer: settings.issuer(),
        authorization_endpoint: settings.endpoint("authorize"),
        token_endpoint: settings.endpoint("token"),
        registration_endpoint: settings.allows_registration().then(|| settings.endpoint("register")),
        revocation_endpoint: settings.endpoint("revoke"),
        scopes_supported: [SCOPE],
        response_types_supported: ["code"],
        response_modes_supported: ["query"],
        grant_types_supported: ["authorization_code", "refresh_token"],
        token_endpoint_auth_methods_supported: AUTH_METHODS,
        token_endpoint_auth_signing_alg_values_supported: jwt::ALGORITHMS,
        revocation_endpoint_auth_methods_supported: AUTH_METHODS,
        revocation_endpoint_auth_signing_alg_values_supported: jwt::ALGORITHMS,
        code_challenge_methods_supported: ["S256"],
        authorization_response_iss_parameter_supported: true,
        client_id_metadata_document_supported: documents,
    };
    response::json(StatusCode::OK, &document)
}

/// The URL of the metadata of the protected resource: the well-known part stands between host and path (RFC 9728
/// section 3.1).
pub(super) fn resource_metadata_url(settings: &Settings) -> String {
    format!(
        "{}/.well-known/oauth-protected-resource{}/mcp",
        settings.origin, settings.prefix
    )
}
