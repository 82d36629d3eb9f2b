//! The response to a registration (RFC 7591 section 3.2.1, RFC 7592 section 3).
//!
//! It has no `null` and no empty member, since several clients refuse such a response. It contains
//! a secret only when the secret was just made: the store has its hash alone.

use http::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::Value;

use crate::{
    records::{ApplicationType, ClientAuth, ClientRecord, KeySource},
    server::{Body, response, scope::SCOPE, state::ServerState, unix_time::unix_seconds},
};

#[derive(Serialize)]
struct ClientInformation<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    client_id_issued_at: u64,
    /// Required with a secret; zero: it does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<u64>,
    registration_access_token: &'a str,
    registration_client_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_name: Option<&'a str>,
    redirect_uris: &'a [String],
    token_endpoint_auth_method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_type: Option<&'a str>,
    grant_types: [&'a str; 2],
    response_types: [&'a str; 1],
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_uri: Option<&'a str>,
}

pub(super) fn response(
    state: &ServerState,
    status: StatusCode,
    client: &ClientRecord,
    registration_token: &str,
    secret: Option<&SecretString>,
) -> Response<Body> {
    let (method, jwks, jwks_uri) = match &client.auth {
        ClientAuth::None => ("none", None, None),
        ClientAuth::Basic(_) => ("client_secret_basic", None, None),
        ClientAuth::Post(_) => ("client_secret_post", None, None),
        ClientAuth::PrivateKeyJwt(KeySource::Inline(json)) => {
            ("private_key_jwt", serde_json::from_str(json).ok(), None)
        }
        ClientAuth::PrivateKeyJwt(KeySource::Uri(uri)) => ("private_key_jwt", None, Some(uri.as_str())),
    };
    let body = ClientInformation {
        client_id: &client.client_id.0,
        client_secret: secret.map(|secret| secret.expose_secret()),
        client_id_issued_at: unix_seconds(client.created_at),
        client_secret_expires_at: secret.map(|_| 0),
        registration_access_token: registration_token,
        registration_client_uri: state.settings.endpoint(&format!("register/{}", client.client_id)),
        client_name: client.name.as_deref(),
        redirect_uris: &client.redirect_uris,
        token_endpoint_auth_method: method,
        application_type: client.application_type.map(ApplicationType::name),
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        scope: SCOPE,
        jwks,
        jwks_uri,
    };
    response::json(status, &body)
}
