//! Dynamic client registration (RFC 7591).
//!
//! **A public client is identified by its metadata**, and registering it again returns the same
//! client. Without a secret, a client identifier stands for nothing but a name and a list of
//! redirect URIs, and any request with the same list sends its users to the same places: no request
//! could prove another origin. Two clients with the same metadata are therefore one client, and a
//! program that registers at each start does not fill the table. It follows that
//!
//! - the port of a loopback redirect URI does not count, since matching ignores it too (RFC 8252
//!   section 7.3); all other metadata counts, to the byte;
//! - a shared client cannot be changed or deleted: the first to register it could redirect the
//!   responses of all others to itself (`manage`);
//! - a request with its identifier must not lock out its other users (`rate_limits`);
//! - grants stay separate: each belongs to one user and ends alone.
//!
//! A client with a secret or keys is a new client at each registration.

mod client_information;
mod manage;
mod registration_request;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Body, oauth_error::OAuthError, state::ServerState};
use crate::{
    ids::ClientId,
    ports::ClientInsertion,
    records::{ClientAuth, ClientRecord, TokenHash},
    redirect_uri, secret,
};
use registration_request::{AuthMethod, RegistrationRequest};

pub(super) use manage::manage;

/// The time for which a new client cannot be evicted: a user needs it to sign in.
const EVICTION_GRACE: Duration = Duration::from_secs(60 * 60);

pub(super) async fn register(state: &ServerState, request: &Request<Bytes>) -> Result<Response<Body>, OAuthError> {
    if !state.settings.allows_registration() {
        return Err(OAuthError::RegistrationClosed);
    }
    let object = registration_request::parse_object(request)?;
    let request = RegistrationRequest::validate(object, state)?;
    let now = state.clock.now();
    let within_limit = state.rate_limits.registration();
    let fingerprint = fingerprint(&request);
    if let (Err(_), Some(fingerprint)) = (&within_limit, fingerprint)
        && let Some(known) = state.clients.client_by_fingerprint(fingerprint).await?
    {
        // A known client writes nothing, so that a flood of others does not lock it out.
        return Ok(known_client(state, known, request));
    }
    within_limit?;
    let client_id = ClientId(secret::name("fmb_client_"));
    let (auth, secret) = new_client_auth(&request.auth_method);
    let is_public = auth == ClientAuth::None;
    let token = if is_public {
        manage::public_token(&state.sealer, &client_id)
    } else {
        secret::mint(secret::REGISTRATION)
    };
    let client = ClientRecord {
        client_id,
        name: request.name.clone(),
        redirect_uris: request.redirect_uris.clone(),
        auth,
        application_type: request.application_type,
        created_at: now,
        domain: None,
        registration_token: (!is_public).then(|| secret::hash(token.expose_secret())),
        fingerprint,
    };
    let max_clients = state.settings.config.max_clients;
    let insertion = state
        .clients
        .insert_client(client.clone(), max_clients, now - EVICTION_GRACE)
        .await?;
    match insertion {
        ClientInsertion::Inserted => {
            tracing::info!(client = client.client_id.0, "client registered");
            let (token, secret) = (token.expose_secret(), secret.as_ref());
            let status = StatusCode::CREATED;
            Ok(client_information::response(state, status, &client, token, secret))
        }
        ClientInsertion::Existing(known) => Ok(known_client(state, *known, request)),
        ClientInsertion::LimitReached => {
            tracing::warn!(max_clients, "registration refused: oauth.max_clients is reached");
            Err(OAuthError::RegistrationFull)
        }
    }
}

/// The authentication of a new client, with its secret if it gets one.
fn new_client_auth(method: &AuthMethod) -> (ClientAuth, Option<SecretString>) {
    let secret = secret::mint(secret::CLIENT_SECRET);
    let hash = secret::hash(secret.expose_secret());
    match method {
        AuthMethod::None => (ClientAuth::None, None),
        AuthMethod::Basic => (ClientAuth::Basic(hash), Some(secret)),
        AuthMethod::Post => (ClientAuth::Post(hash), Some(secret)),
        AuthMethod::PrivateKeyJwt(source) => (ClientAuth::PrivateKeyJwt(source.clone()), None),
    }
}

/// The response for a public client that is registered already. Its redirect URIs are those of the
/// request, which may differ from the stored ones in the port of a loopback address.
fn known_client(state: &ServerState, known: ClientRecord, request: RegistrationRequest) -> Response<Body> {
    tracing::debug!(client = known.client_id.0, "known client registered again");
    let token = manage::public_token(&state.sealer, &known.client_id);
    let client = ClientRecord {
        redirect_uris: request.redirect_uris,
        ..known
    };
    client_information::response(state, StatusCode::CREATED, &client, token.expose_secret(), None)
}

/// The fingerprint of a public client. The parts are written as JSON, so that their borders count.
/// A client without an `application_type` has the fingerprint that it had before these were kept.
fn fingerprint(request: &RegistrationRequest) -> Option<TokenHash> {
    if request.auth_method != AuthMethod::None {
        return None;
    }
    let mut uris: Vec<String> = request
        .redirect_uris
        .iter()
        .map(|uri| redirect_uri::without_loopback_port(uri))
        .collect();
    uris.sort_unstable();
    uris.dedup();
    let text = match request.application_type {
        Some(kind) => serde_json::json!([request.name, uris, kind.name()]),
        None => serde_json::json!([request.name, uris]),
    };
    Some(secret::hash(&text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::ApplicationType;

    fn of(name: Option<&str>, uris: &[&str], auth_method: AuthMethod) -> Option<TokenHash> {
        fingerprint(&RegistrationRequest {
            name: name.map(str::to_owned),
            redirect_uris: uris.iter().map(|&uri| uri.to_owned()).collect(),
            application_type: None,
            auth_method,
        })
    }

    #[test]
    fn another_application_type_is_another_fingerprint() {
        let of = |application_type| {
            fingerprint(&RegistrationRequest {
                name: Some("A".to_owned()),
                redirect_uris: vec!["http://127.0.0.1/cb".to_owned()],
                application_type,
                auth_method: AuthMethod::None,
            })
        };
        let fingerprints = [None, Some(ApplicationType::Native), Some(ApplicationType::Web)].map(of);
        let [none, native, web] = fingerprints;
        assert!(none != native && native != web && none != web);
        // That of a client of an earlier version.
        assert_eq!(none, Some(secret::hash(r#"["A",["http://127.0.0.1/cb"]]"#)));
    }

    #[test]
    fn public_clients_with_the_same_name_and_redirect_uris_share_a_fingerprint() {
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
    fn a_client_with_a_secret_has_no_fingerprint() {
        assert_eq!(of(Some("A"), &["https://a.example/"], AuthMethod::Basic), None);
    }
}
