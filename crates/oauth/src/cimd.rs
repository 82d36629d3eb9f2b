//! Clients whose identifier is the URL of a document that describes them (client ID metadata document draft 00, which
//! MCP 2025-11-25 pins; "the draft" below).
//!
//! The document is the registration: what it says now counts, and the host that it comes from is the one thing about
//! such a client that is verified. It is read by the hardened fetcher and kept by [`DocumentCache`]; nothing of it is
//! written to the store.
//!
//! Left out: `logo_uri` and other links, which nobody follows (section 6.7), and actions on changed keys (section 6.3): a
//! client's refresh needs a signature by a key that is published at that time.

use std::{sync::Arc, time::UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{
    client_name::clean_name,
    document_cache::DocumentCache,
    fetch::{self, Fetch, FetchError},
    ids::ClientId,
    jwt::KeySet,
    ports::Clock,
    records::{ClientAuth, ClientRecord, KeySource},
    redirect_uri,
};

/// The documents of clients, and the key sets that they point to.
#[derive(Debug)]
pub(crate) struct ClientDocuments {
    documents: DocumentCache<ClientRecord>,
    key_sets: DocumentCache<KeySet>,
}

/// What is read of a document. The rest of the registry of client metadata has no use here.
#[derive(Deserialize)]
struct Metadata {
    client_id: String,
    client_name: Option<String>,
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    client_secret: Option<Value>,
    client_secret_expires_at: Option<Value>,
}

/// The longest document, in bytes (the draft, section 6.6).
const MAX_DOCUMENT: usize = 5 * 1024;
/// The longest key set, in bytes.
const MAX_KEY_SET: usize = 32 * 1024;

impl ClientDocuments {
    pub(crate) fn new(fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>) -> Self {
        Self {
            documents: DocumentCache::new(Arc::clone(&fetch), Arc::clone(&clock), MAX_DOCUMENT),
            key_sets: DocumentCache::new(fetch, clock, MAX_KEY_SET),
        }
    }

    /// The client of a URL that [`client_url`] has accepted.
    ///
    /// # Errors
    ///
    /// Any [`FetchError`].
    pub(crate) async fn client(&self, url: &Url) -> Result<Arc<ClientRecord>, FetchError> {
        self.documents.get(url, |json| read(json, url)).await
    }

    /// What was last known of a client, without a look at the network.
    pub(crate) fn known(&self, client_id: &ClientId) -> Option<ClientRecord> {
        self.documents.copy(&client_id.0).map(|client| (*client).clone())
    }

    /// The key set at a URL. `newer`: the one that is kept was found wanting.
    ///
    /// # Errors
    ///
    /// Any [`FetchError`].
    pub(crate) async fn key_set(&self, uri: &str, newer: bool) -> Result<Arc<KeySet>, FetchError> {
        let url = fetch::check_url(uri).map_err(FetchError::Forbidden)?;
        if newer {
            self.key_sets.get_newer(&url, KeySet::parse).await
        } else {
            self.key_sets.get(&url, KeySet::parse).await
        }
    }
}

/// Whether a client identifier is meant as a URL.
pub(crate) fn is_url(client_id: &ClientId) -> bool {
    client_id.0.starts_with("https://")
}

/// Checks the URL of a document (the draft, section 3).
///
/// Only the normal form is taken, so that one document has one name; it holds no dot segments, no default port and a
/// path.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn client_url(client_id: &ClientId) -> Result<Url, &'static str> {
    let url = fetch::check_url(&client_id.0)?;
    if url.as_str() != client_id.0 {
        return Err("the URL must be in its normal form, with a path");
    }
    // The parser leaves these alone; whoever serves the document may not.
    let path = url.path().to_ascii_lowercase().replace("%2e", ".");
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("the URL must not have dot segments");
    }
    Ok(url)
}

/// Reads a document (the draft, section 4.1; MCP 2025-11-25 authorization, "Client ID Metadata Documents").
fn read(json: &[u8], url: &Url) -> Result<ClientRecord, &'static str> {
    let object: serde_json::Map<String, Value> = serde_json::from_slice(json).map_err(|_| "it is no JSON object")?;
    let metadata: Metadata =
        serde_json::from_value(Value::Object(object)).map_err(|_| "it is no client metadata document")?;
    if metadata.client_id != url.as_str() {
        return Err("its client_id is not the URL that it was read from");
    }
    if metadata.client_secret.is_some() || metadata.client_secret_expires_at.is_some() {
        return Err("it holds a client_secret");
    }
    let without = |types: &Option<Vec<String>>, wanted: &str| {
        types
            .as_ref()
            .is_some_and(|types| !types.is_empty() && !types.iter().any(|name| name == wanted))
    };
    if without(&metadata.grant_types, "authorization_code") || without(&metadata.response_types, "code") {
        return Err("the client does not use the authorization code flow");
    }
    if metadata.redirect_uris.is_empty() {
        return Err("it has no redirect_uris");
    }
    for uri in &metadata.redirect_uris {
        redirect_uri::check(uri)?;
    }
    let auth = match metadata.token_endpoint_auth_method.as_deref() {
        // RFC 7591 section 2 has client_secret_basic for silence, which a document cannot mean.
        None | Some("none") => ClientAuth::None,
        Some("private_key_jwt") => ClientAuth::PrivateKeyJwt(key_source(metadata.jwks, metadata.jwks_uri)?),
        Some(_) => return Err("its token_endpoint_auth_method is neither none nor private_key_jwt"),
    };
    let name = metadata.client_name.as_deref().and_then(clean_name);
    if name.is_none() {
        return Err("it has no client_name");
    }
    Ok(ClientRecord {
        client_id: ClientId(metadata.client_id),
        name,
        redirect_uris: metadata.redirect_uris,
        auth,
        created_at: UNIX_EPOCH,
        domain: domain(url),
        registration_token: None,
        fingerprint: None,
    })
}

/// Where the keys of a client are: in its metadata or at a URL, never both (RFC 7591 section 2).
///
/// # Errors
///
/// What is wrong, for the client's developer.
pub(crate) fn key_source(jwks: Option<Value>, jwks_uri: Option<String>) -> Result<KeySource, &'static str> {
    match (jwks, jwks_uri) {
        (Some(jwks), None) => {
            let json = jwks.to_string();
            KeySet::parse(json.as_bytes())?;
            Ok(KeySource::Inline(json))
        }
        (None, Some(uri)) => {
            fetch::check_url(&uri)?;
            Ok(KeySource::Uri(uri))
        }
        (Some(_), Some(_)) => Err("there must not be both jwks and jwks_uri"),
        (None, None) => Err("private_key_jwt needs jwks or jwks_uri"),
    }
}

/// The host that vouches for the client, with its port if that is not the usual one.
fn domain(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(
        url.port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://client.example/metadata.json";

    fn document(changes: &Value) -> Result<ClientRecord, &'static str> {
        let mut document = json!({
            "client_id": URL,
            "client_name": "A client",
            "redirect_uris": ["http://127.0.0.1/callback", "https://client.example/callback"],
            "logo_uri": "https://client.example/logo.png",
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        read(document.to_string().as_bytes(), &Url::parse(URL).unwrap())
    }

    #[test]
    fn a_document_is_a_client_that_its_host_vouches_for() {
        let client = document(&json!({})).unwrap();
        assert_eq!(
            (client.client_id.0.as_str(), client.domain.as_deref()),
            (URL, Some("client.example"))
        );
        assert_eq!(client.auth, ClientAuth::None);
        assert_eq!(client.redirect_uris.len(), 2);
        let keys = json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keys.example/set"});
        let auth = document(&keys).unwrap().auth;
        assert_eq!(
            auth,
            ClientAuth::PrivateKeyJwt(KeySource::Uri("https://keys.example/set".to_owned()))
        );
    }

    #[test]
    fn what_is_not_allowed_in_a_document_makes_it_none() {
        for changes in [
            json!({"client_id": "https://client.example/other.json"}),
            json!({"client_id": "https://client.example/metadata.json/"}),
            json!({"client_id": null}),
            json!({"client_name": ""}),
            json!({"client_name": null}),
            json!({"redirect_uris": []}),
            json!({"redirect_uris": "https://client.example/"}),
            json!({"redirect_uris": ["https://client.example/", "javascript:alert(1)"]}),
            json!({"redirect_uris": ["http://client.example/"]}),
            json!({"client_secret": "x"}),
            json!({"client_secret_expires_at": 0}),
            json!({"token_endpoint_auth_method": "client_secret_basic"}),
            json!({"token_endpoint_auth_method": "client_secret_jwt"}),
            json!({"token_endpoint_auth_method": "private_key_jwt"}),
            json!({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}}),
            json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://keys.example/"}),
            json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://127.0.0.1/"}),
            json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://k.example/", "jwks": {"keys": []}}),
            json!({"grant_types": ["client_credentials"]}),
            json!({"response_types": ["token"]}),
        ] {
            assert!(document(&changes).is_err(), "{changes}");
        }
        for text in ["", "[]", "null", "{", "{}"] {
            assert!(read(text.as_bytes(), &Url::parse(URL).unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_normal_form_of_a_url_is_a_client() {
        for good in [
            URL,
            "https://client.example/",
            "https://client.example:8443/a/b",
            "https://client.example/a?b=c",
        ] {
            assert!(client_url(&ClientId(good.to_owned())).is_ok(), "{good}");
        }
        for bad in [
            "https://client.example",
            "https://CLIENT.example/a",
            "https://client.example:443/a",
            "https://client.example/a/../b",
            "https://client.example/./a",
            "https://client.example/%2e%2E/a",
            "https://client.example/a#b",
            "https://user@client.example/a",
            "http://client.example/a",
            "https://10.0.0.1/a",
        ] {
            assert!(client_url(&ClientId(bad.to_owned())).is_err(), "{bad}");
        }
    }
}
