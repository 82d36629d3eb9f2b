//! Registration of clients by themselves (RFC 7591).
//!
//! The answer has no `null` and no empty field: several clients refuse such an answer. What this server has no use
//! for (logos, contacts, key sets) is ignored, as RFC 7591 section 2 allows.
//!
//! A client that does not say how it will authenticate gets a secret for `client_secret_basic`, the default of
//! section 2, and is told so in the answer.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Body, Inner, metadata, respond, respond::OAuthError};
use crate::{
    config::Registration,
    records::{ClientAuth, ClientRecord},
    redirect_uri, secret,
};

/// The longest request, in bytes.
const MAX_BODY: usize = 32 * 1024;
/// How many redirect URIs a client may have.
const MAX_REDIRECT_URIS: usize = 10;
/// The longest name, in characters. Longer ones are cut.
const MAX_NAME: usize = 100;

/// What a client asks for; `null` is as good as nothing. Members of another type than expected are an error, unknown
/// ones are ignored.
#[derive(Deserialize)]
struct Asked {
    redirect_uris: Option<Vec<String>>,
    client_name: Option<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
}

/// What it gets (RFC 7591 section 3.2.1).
#[derive(Serialize)]
struct Registered<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    client_id_issued_at: u64,
    /// Required with a secret; zero: it does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_name: Option<&'a str>,
    redirect_uris: &'a [String],
    token_endpoint_auth_method: &'a str,
    grant_types: [&'a str; 2],
    response_types: [&'a str; 1],
    scope: &'a str,
}

pub(super) async fn register(inner: &Inner, request: &Request<Bytes>) -> Response<Body> {
    match try_register(inner, request.body()).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn try_register(inner: &Inner, body: &[u8]) -> Result<Response<Body>, OAuthError> {
    if inner.settings.registration == Registration::Closed {
        return Err(OAuthError::RegistrationClosed);
    }
    if body.len() > MAX_BODY {
        return Err(OAuthError::InvalidClientMetadata("the metadata is too long"));
    }
    let not_metadata = |_| OAuthError::InvalidClientMetadata("the body must be a JSON object of client metadata");
    // By way of a map, since serde would take an array for the fields in their order.
    let object: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(not_metadata)?;
    let asked: Asked = serde_json::from_value(Value::Object(object)).map_err(not_metadata)?;
    let redirect_uris = asked.redirect_uris.unwrap_or_default();
    if redirect_uris.is_empty() {
        return Err(OAuthError::InvalidRedirectUri("redirect_uris is missing"));
    }
    if redirect_uris.len() > MAX_REDIRECT_URIS {
        return Err(OAuthError::InvalidRedirectUri(
            "a client may have ten redirect URIs at most",
        ));
    }
    for uri in &redirect_uris {
        redirect_uri::check(uri).map_err(OAuthError::InvalidRedirectUri)?;
    }
    // A client that leaves the lists out, or asks for more than there is, gets what there is (section 2: the server may
    // replace values). One that cannot do with that is told.
    if asked
        .grant_types
        .is_some_and(|types| !types.is_empty() && !types.iter().any(|t| t == "authorization_code"))
    {
        return Err(OAuthError::InvalidClientMetadata(
            "grant_types must include authorization_code",
        ));
    }
    if asked
        .response_types
        .is_some_and(|types| !types.is_empty() && !types.iter().any(|t| t == "code"))
    {
        return Err(OAuthError::InvalidClientMetadata("response_types must include code"));
    }
    let secret: SecretString = secret::mint(secret::CLIENT_SECRET);
    let hash = secret::hash(secret.expose_secret());
    let method = asked
        .token_endpoint_auth_method
        .as_deref()
        .unwrap_or("client_secret_basic");
    let auth = match method {
        "none" => ClientAuth::None,
        "client_secret_basic" => ClientAuth::Basic(hash),
        "client_secret_post" => ClientAuth::Post(hash),
        _ => {
            return Err(OAuthError::InvalidClientMetadata(
                "this token_endpoint_auth_method is not supported",
            ));
        }
    };
    let now = inner.accounts.clock.now();
    let client = ClientRecord {
        client_id: secret::name("fmb_client_"),
        name: asked.client_name.as_deref().and_then(clean_name),
        redirect_uris,
        auth,
        created_at: now,
    };
    let answer = Registered {
        client_id: &client.client_id,
        client_secret: (auth != ClientAuth::None).then(|| secret.expose_secret()),
        client_id_issued_at: now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs(),
        client_secret_expires_at: (auth != ClientAuth::None).then_some(0),
        client_name: client.name.as_deref(),
        redirect_uris: &client.redirect_uris,
        token_endpoint_auth_method: method,
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        scope: metadata::SCOPE,
    };
    let response = respond::json(StatusCode::CREATED, &answer);
    let client_id = client.client_id.clone();
    if !inner.store().insert_client(client, inner.settings.max_clients).await? {
        tracing::warn!(
            max_clients = inner.settings.max_clients,
            "too many clients have registered"
        );
        return Err(OAuthError::RegistrationFull);
    }
    tracing::info!(client = client_id, "client registered");
    Ok(response)
}

/// A name without what would let it pose as another text: control characters and marks that turn the direction of
/// writing.
fn clean_name(name: &str) -> Option<String> {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !turns(*c))
        .take(MAX_NAME)
        .collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_cleaned() {
        assert_eq!(clean_name("  Claude\u{202e}\n Code "), Some("Claude Code".to_owned()));
        assert_eq!(clean_name(" \t"), None);
        assert_eq!(clean_name(&"x".repeat(1000)).map(|name| name.len()), Some(100));
    }
}
