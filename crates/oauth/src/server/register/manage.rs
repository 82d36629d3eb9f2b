//! What a registered client may do with its registration: read, replace, delete (RFC 7592).
//!
//! The registration access token says which client it is for. That of a client with a secret or keys is a secret of its
//! own; that of a public client is derived from its name, and lets it read and nothing else, since the client is one
//! with all that registered alike.

use bytes::Bytes;
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{
    client_information,
    client_metadata::{self, AuthMethod, ClientMetadata},
};
use crate::{
    ids::ClientId,
    records::{ClientAuth, ClientRecord},
    secret,
    server::{Body, ServerState, response, response::OAuthError},
};

/// What a token of a public client is derived for.
const PURPOSE: &str = "registration access token";

/// The registration access token of a public client.
pub(super) fn public_token(inner: &ServerState, client_id: &ClientId) -> SecretString {
    let bytes = inner.sealer.keyed_hash(PURPOSE, &[&client_id.0]);
    secret::with_prefix(secret::REGISTRATION, bytes)
}

/// `GET`, `PUT` or `DELETE` of a registration.
pub(in crate::server) async fn manage(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    match try_manage(inner, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn try_manage(inner: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, OAuthError> {
    let client_id = request.uri().path().rsplit('/').next().unwrap_or_default();
    let client_id = ClientId(client_id.to_owned());
    let token = bearer(request.headers()).ok_or(OAuthError::InvalidRegistrationToken)?;
    // Section 2: the answer is the same for a client that there is not.
    let client = inner.clients.client(&client_id).await?;
    let client = client
        .filter(|client| is_token_of(inner, client, token))
        .ok_or(OAuthError::InvalidRegistrationToken)?;
    inner.rate_limits.manage(&client.client_id, inner.clock.now())?;
    let method = request.method();
    if method == Verb::GET {
        return Ok(client_information::response(
            inner,
            StatusCode::OK,
            &client,
            &client.redirect_uris,
            token,
            None,
        ));
    }
    if client.registration_token.is_none() {
        return Err(OAuthError::RegistrationFixed);
    }
    inner.rate_limits.change(inner.clock.now())?;
    if method == Verb::DELETE {
        inner.revocations.delete_client(client.client_id.clone()).await?;
        tracing::info!(client = client.client_id.0, "client deleted by itself, with its grants");
        let mut response = response::plain(StatusCode::NO_CONTENT, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        return Ok(response);
    }
    let client = replaced(inner, client, request.body())?;
    if !inner.clients.update_client(client.clone()).await? {
        return Err(OAuthError::InvalidRegistrationToken);
    }
    tracing::info!(client = client.client_id.0, "client changed its registration");
    Ok(client_information::response(
        inner,
        StatusCode::OK,
        &client,
        &client.redirect_uris,
        token,
        None,
    ))
}

/// A client with new metadata (section 2.2): all of it is replaced, but for who the client is and how it proves that.
fn replaced(inner: &ServerState, client: ClientRecord, body: &[u8]) -> Result<ClientRecord, OAuthError> {
    let object = client_metadata::object(body)?;
    if object.get("client_id").and_then(Value::as_str) != Some(client.client_id.0.as_str()) {
        return Err(OAuthError::InvalidClientMetadata(
            "client_id must be that of the client",
        ));
    }
    for name in [
        "registration_access_token",
        "registration_client_uri",
        "client_secret_expires_at",
        "client_id_issued_at",
    ] {
        if object.contains_key(name) {
            return Err(OAuthError::InvalidClientMetadata(
                "the metadata must not hold what only the server says",
            ));
        }
    }
    let secret = object
        .get("client_secret")
        .map(|secret| secret::hash(secret.as_str().unwrap_or_default()));
    let asked = ClientMetadata::of(object, &inner.settings)?;
    let auth = match (client.auth, asked.method) {
        (ClientAuth::Basic(hash) | ClientAuth::Post(hash), AuthMethod::Basic) => ClientAuth::Basic(hash),
        (ClientAuth::Basic(hash) | ClientAuth::Post(hash), AuthMethod::Post) => ClientAuth::Post(hash),
        (ClientAuth::PrivateKeyJwt(_), AuthMethod::PrivateKeyJwt(source)) => {
            super::check_source(inner, &source)?;
            ClientAuth::PrivateKeyJwt(source)
        }
        (ClientAuth::None | ClientAuth::Basic(_) | ClientAuth::Post(_) | ClientAuth::PrivateKeyJwt(_), _) => {
            return Err(OAuthError::InvalidClientMetadata(
                "a client cannot change to another kind of authentication",
            ));
        }
    };
    if let (Some(secret), ClientAuth::Basic(hash) | ClientAuth::Post(hash)) = (secret, &auth)
        && !secret::same(&secret.0, &hash.0)
    {
        return Err(OAuthError::InvalidClientMetadata(
            "client_secret is not that of the client",
        ));
    }
    Ok(ClientRecord {
        name: asked.name,
        redirect_uris: asked.redirect_uris,
        auth,
        ..client
    })
}

fn is_token_of(inner: &ServerState, client: &ClientRecord, token: &str) -> bool {
    let hash = client.registration_token;
    // A client from before there were such tokens has none.
    let expected = match (&client.auth, hash) {
        (_, Some(hash)) => hash,
        (ClientAuth::None, None) => secret::hash(public_token(inner, &client.client_id).expose_secret()),
        (ClientAuth::Basic(_) | ClientAuth::Post(_) | ClientAuth::PrivateKeyJwt(_), None) => return false,
    };
    secret::same(&secret::hash(token).0, &expected.0)
}

/// The one bearer of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
