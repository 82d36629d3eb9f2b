//! What a client is told of its registration (RFC 7591 section 3.2.1, RFC 7592 section 3).
//!
//! There is no `null` and no empty field in it: several clients refuse such an answer. A secret is told once, when it is
//! made: only its hash is kept.

use std::time::UNIX_EPOCH;

use http::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::Value;

use crate::{
    records::{ClientAuth, ClientRecord, KeySource},
    server::{Body, ServerState, metadata, response},
};

#[derive(Serialize)]
struct Registered<'a> {
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
    grant_types: [&'a str; 2],
    response_types: [&'a str; 1],
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_uri: Option<&'a str>,
}

/// The answer for a client. `redirect_uris` are those that it asked for, which may differ from what is kept in the port
/// of a loopback address.
pub(super) fn response(
    inner: &ServerState,
    status: StatusCode,
    client: &ClientRecord,
    redirect_uris: &[String],
    token: &str,
    secret: Option<&SecretString>,
) -> Response<Body> {
    let (method, keys) = match &client.auth {
        ClientAuth::None => ("none", None),
        ClientAuth::Basic(_) => ("client_secret_basic", None),
        ClientAuth::Post(_) => ("client_secret_post", None),
        ClientAuth::PrivateKeyJwt(source) => ("private_key_jwt", Some(source)),
    };
    let (jwks, jwks_uri) = match keys {
        Some(KeySource::Inline(json)) => (serde_json::from_str(json).ok(), None),
        Some(KeySource::Uri(uri)) => (None, Some(uri.as_str())),
        None => (None, None),
    };
    let answer = Registered {
        client_id: &client.client_id.0,
        client_secret: secret.map(|secret| secret.expose_secret()),
        client_id_issued_at: client
            .created_at
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        client_secret_expires_at: secret.map(|_| 0),
        registration_access_token: token,
        registration_client_uri: format!("{}/oauth/register/{}", inner.settings.issuer, client.client_id),
        client_name: client.name.as_deref(),
        redirect_uris,
        token_endpoint_auth_method: method,
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        scope: metadata::SCOPE,
        jwks,
        jwks_uri,
    };
    response::json(status, &answer)
}
