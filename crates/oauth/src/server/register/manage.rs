//! Management of a registration by its client: read, replace, delete (RFC 7592).
//!
//! The registration access token identifies the client. For a client with a secret or keys it is
//! random. For a public client it derives from the client identifier and allows only reading, since
//! all who registered the same metadata share the client.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{
    client_information,
    registration_request::{self, AuthMethod, RegistrationRequest},
};
use crate::{
    ids::ClientId,
    records::{ClientAuth, ClientRecord},
    seal::Sealer,
    secret,
    server::{Body, client_lookup, guard, oauth_error::OAuthError, response, state::ServerState},
};

/// Members of the metadata that only the server sets.
const SERVER_MEMBERS: [&str; 4] = [
    "registration_access_token",
    "registration_client_uri",
    "client_secret_expires_at",
    "client_id_issued_at",
];

/// The registration access token of a public client.
pub(super) fn public_token(sealer: &Sealer, client_id: &ClientId) -> SecretString {
    let bytes = sealer.keyed_hash("registration access token", &[&client_id.0]);
    secret::with_prefix(secret::REGISTRATION, bytes)
}

/// `GET`, `PUT` or `DELETE` of a registration.
pub(in crate::server) async fn manage(
    state: &ServerState,
    request: &Request<Bytes>,
) -> Result<Response<Body>, OAuthError> {
    let client_id = request.uri().path().rsplit('/').next().unwrap_or_default();
    let token = guard::bearer_token(request.headers()).map_err(|_| OAuthError::InvalidRegistrationToken)?;
    // Section 2: an unknown client gets the same response.
    let client = client_lookup::registered(state, &ClientId(client_id.to_owned())).await?;
    let mut client = client
        .filter(|client| is_token_of(&state.sealer, client, token))
        .ok_or(OAuthError::InvalidRegistrationToken)?;
    state.rate_limits.management(&client.client_id)?;
    if request.method() != Method::GET {
        if client.registration_token.is_none() {
            return Err(OAuthError::RegistrationFixed);
        }
        state.rate_limits.registration_change()?;
        if request.method() == Method::DELETE {
            state.revocations.delete_client(client.client_id.clone()).await?;
            let client = client.client_id.0;
            tracing::info!(client, "client deleted its registration; its grants have ended");
            return Ok(response::no_content());
        }
        client = replaced(state, client, request)?;
        if !state.clients.update_client(client.clone()).await? {
            return Err(OAuthError::InvalidRegistrationToken);
        }
        tracing::info!(client = client.client_id.0, "client changed its registration");
    }
    Ok(client_information::response(
        state,
        StatusCode::OK,
        &client,
        token,
        None,
    ))
}

/// The client with new metadata (section 2.2), which replaces everything but its identity and its
/// credentials.
fn replaced(state: &ServerState, client: ClientRecord, request: &Request<Bytes>) -> Result<ClientRecord, OAuthError> {
    let refuse = |reason| Err(OAuthError::InvalidClientMetadata(reason));
    let object = registration_request::parse_object(request)?;
    if object.get("client_id").and_then(Value::as_str) != Some(client.client_id.0.as_str()) {
        return refuse("client_id must be that of the client");
    }
    if SERVER_MEMBERS.iter().any(|name| object.contains_key(*name)) {
        return refuse("the metadata must not contain members that only the server sets");
    }
    let secret = object
        .get("client_secret")
        .map(|secret| secret::hash(secret.as_str().unwrap_or_default()));
    let request = RegistrationRequest::validate(object, state)?;
    let auth = match (client.auth, request.auth_method) {
        (ClientAuth::Basic(hash) | ClientAuth::Post(hash), AuthMethod::Basic) => ClientAuth::Basic(hash),
        (ClientAuth::Basic(hash) | ClientAuth::Post(hash), AuthMethod::Post) => ClientAuth::Post(hash),
        (ClientAuth::PrivateKeyJwt(_), AuthMethod::PrivateKeyJwt(source)) => ClientAuth::PrivateKeyJwt(source),
        (ClientAuth::None | ClientAuth::Basic(_) | ClientAuth::Post(_) | ClientAuth::PrivateKeyJwt(_), _) => {
            return refuse("a client cannot change to another kind of authentication");
        }
    };
    if let (Some(secret), ClientAuth::Basic(hash) | ClientAuth::Post(hash)) = (secret, &auth)
        && !secret::same(&secret.0, &hash.0)
    {
        return refuse("client_secret must be that of the client");
    }
    Ok(ClientRecord {
        name: request.name,
        redirect_uris: request.redirect_uris,
        application_type: request.application_type,
        auth,
        ..client
    })
}

fn is_token_of(sealer: &Sealer, client: &ClientRecord, token: &str) -> bool {
    let expected = match (&client.auth, client.registration_token) {
        (_, Some(hash)) => hash,
        (ClientAuth::None, None) => secret::hash(public_token(sealer, &client.client_id).expose_secret()),
        // The client was registered before such tokens existed.
        (ClientAuth::Basic(_) | ClientAuth::Post(_) | ClientAuth::PrivateKeyJwt(_), None) => return false,
    };
    secret::same(&secret::hash(token).0, &expected.0)
}
