//! Registration of clients by themselves (RFC 7591).
//!
//! What this server has no use for (logos, contacts) is ignored, as RFC 7591 section 2 allows.
//!
//! **A public client is what it says of itself**, and registering it again gives back the same client. Without a secret,
//! a client identifier stands for nothing but a name and a list of redirect URIs, and whoever registers the same list
//! sends its users to the same places: there is nobody else to tell it from, no "origin" that a request could prove. So
//! two with the same metadata are one client, and a program that registers at each start does not fill the table. What
//! that asks for in turn:
//!
//! - the port of a loopback redirect URI does not count, since it does not count when it is matched either
//!   (RFC 8252 section 7.3); anything else in the metadata does, to the byte;
//! - a shared client cannot be changed or deleted by anyone who registered it: the first one there could turn the answers
//!   of all the others to itself (`manage`);
//! - nothing that anyone does in its name may lock out the others (`rate_limits`);
//! - grants stay apart: each is one user's, ended alone.
//!
//! A client with a secret or keys is a client of its own each time.

mod client_information;
mod client_metadata;
mod manage;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Body, ServerState, response::OAuthError};
use crate::{
    ids::ClientId,
    ports::ClientInsertion,
    records::{ClientAuth, ClientRecord, KeySource, TokenHash},
    redirect_uri, secret,
};
use client_metadata::{AuthMethod, ClientMetadata};

pub(super) use manage::manage;

/// How long a client that nobody has used is safe from making room for others: a user needs that long to sign in.
const SAFE: Duration = Duration::from_secs(60 * 60);

pub(super) async fn register(inner: &ServerState, request: &Request<Bytes>) -> Response<Body> {
    match try_register(inner, request.body()).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn try_register(inner: &ServerState, body: &[u8]) -> Result<Response<Body>, OAuthError> {
    if !inner.settings.registers() {
        return Err(OAuthError::RegistrationClosed);
    }
    let asked = ClientMetadata::of(client_metadata::object(body)?, &inner.settings)?;
    let now = inner.clock.now();
    let within = inner.rate_limits.register(now);
    let fingerprint = fingerprint(&asked);
    if let (Err(_), Some(fingerprint)) = (&within, fingerprint)
        && let Some(known) = inner.clients.client_by_fingerprint(fingerprint).await?
    {
        // Nothing new comes of it, so that a flood of others does not keep it out.
        return Ok(shared(inner, &known, &asked));
    }
    within?;
    let secret: SecretString = secret::mint(secret::CLIENT_SECRET);
    let hash = secret::hash(secret.expose_secret());
    let (auth, secret) = match &asked.method {
        AuthMethod::None => (ClientAuth::None, None),
        AuthMethod::Basic => (ClientAuth::Basic(hash), Some(secret)),
        AuthMethod::Post => (ClientAuth::Post(hash), Some(secret)),
        AuthMethod::PrivateKeyJwt(source) => {
            check_source(inner, source)?;
            (ClientAuth::PrivateKeyJwt(source.clone()), None)
        }
    };
    let client_id = ClientId(secret::name("fmb_client_"));
    let token = match asked.method {
        AuthMethod::None => manage::public_token(inner, &client_id),
        AuthMethod::Basic | AuthMethod::Post | AuthMethod::PrivateKeyJwt(_) => secret::mint(secret::REGISTRATION),
    };
    let client = ClientRecord {
        client_id,
        name: asked.name.clone(),
        redirect_uris: asked.redirect_uris.clone(),
        registration_token: (auth != ClientAuth::None).then(|| secret::hash(token.expose_secret())),
        auth,
        created_at: now,
        domain: None,
        fingerprint,
    };
    let max_clients = inner.settings.max_clients;
    match inner
        .clients
        .insert_client(client.clone(), max_clients, now - SAFE)
        .await?
    {
        ClientInsertion::Inserted => {
            tracing::info!(client = client.client_id.0, "client registered");
            let (token, uris) = (token.expose_secret(), &client.redirect_uris);
            Ok(client_information::response(
                inner,
                StatusCode::CREATED,
                &client,
                uris,
                token,
                secret.as_ref(),
            ))
        }
        ClientInsertion::Existing(known) => Ok(shared(inner, &known, &asked)),
        ClientInsertion::LimitReached => {
            tracing::warn!(max_clients, "too many clients have registered");
            Err(OAuthError::RegistrationFull)
        }
    }
}

/// The answer for a public client that is there already.
fn shared(inner: &ServerState, known: &ClientRecord, asked: &ClientMetadata) -> Response<Body> {
    tracing::debug!(client = known.client_id.0, "client registered again");
    let token = manage::public_token(inner, &known.client_id);
    let uris = &asked.redirect_uris;
    client_information::response(inner, StatusCode::CREATED, known, uris, token.expose_secret(), None)
}

/// Keys at a URL are of use only where URLs are read.
fn check_source(inner: &ServerState, source: &KeySource) -> Result<(), OAuthError> {
    match source {
        KeySource::Uri(_) if inner.documents.is_none() => {
            Err(OAuthError::InvalidClientMetadata("jwks_uri is not supported, jwks is"))
        }
        KeySource::Uri(_) | KeySource::Inline(_) => Ok(()),
    }
}

/// What a public client is known by. The parts are written one after the other as JSON, so that their borders count.
fn fingerprint(asked: &ClientMetadata) -> Option<TokenHash> {
    if asked.method != AuthMethod::None {
        return None;
    }
    let mut uris: Vec<String> = asked
        .redirect_uris
        .iter()
        .map(|uri| redirect_uri::without_loopback_port(uri))
        .collect();
    uris.sort_unstable();
    uris.dedup();
    let text = serde_json::json!([asked.name, uris]).to_string();
    Some(secret::hash(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: Option<&str>, uris: &[&str], method: AuthMethod) -> Option<TokenHash> {
        fingerprint(&ClientMetadata {
            name: name.map(str::to_owned),
            redirect_uris: uris.iter().map(|&uri| uri.to_owned()).collect(),
            method,
        })
    }

    #[test]
    fn public_clients_are_one_by_name_and_redirect_uris_but_for_loopback_ports() {
        let one = of(
            Some("A"),
            &["http://127.0.0.1:1/cb", "https://a.example/"],
            AuthMethod::None,
        );
        let same = of(
            Some("A"),
            &["https://a.example/", "http://127.0.0.1:2/cb", "http://127.0.0.1:3/cb"],
            AuthMethod::None,
        );
        assert!(one.is_some() && one == same);
        for (name, uris) in [
            (None, &["http://127.0.0.1:1/cb", "https://a.example/"][..]),
            (Some("B"), &["http://127.0.0.1:1/cb", "https://a.example/"]),
            (Some("A"), &["http://127.0.0.1:1/cb"]),
            (Some("A"), &["http://localhost:1/cb", "https://a.example/"]),
            (Some("A"), &["http://127.0.0.1:1/other", "https://a.example/"]),
            (Some("A"), &["http://127.0.0.1:1/cb", "https://a.example:8443/"]),
            (Some("A"), &["http://127.0.0.1:1/cb", "https://A.example/"]),
        ] {
            assert_ne!(of(name, uris, AuthMethod::None), one, "{name:?} {uris:?}");
        }
    }

    #[test]
    fn a_client_with_a_secret_is_one_of_its_own() {
        assert_eq!(of(Some("A"), &["https://a.example/"], AuthMethod::Basic), None);
    }
}
