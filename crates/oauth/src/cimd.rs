//! Clients whose identifier is the URL of their metadata document
//! (draft-ietf-oauth-client-id-metadata-document-00, "the draft" below, to which MCP 2025-11-25 and
//! 2026-07-28 refer).
//!
//! The current document is the registration, and the host that serves it is the only verified fact
//! about such a client. The hardened fetcher reads documents and a [`DocumentCache`] holds them;
//! nothing of them goes to the store.
//!
//! Identifiers are compared as strings and never normalized (section 4.1): two spellings of one URL
//! are two clients, and the document names the one that exists.
//!
//! Left out: `logo_uri` and other links (section 6.7); a relation between redirect URIs and the
//! host of the document (section 6.1); a service for documents of clients in development (section
//! 4.2), which can register instead; reactions to changed keys (section 6.3), since each refresh of
//! a client needs a signature by a key that is published at that time.

use std::{sync::Arc, time::UNIX_EPOCH};

use serde_json::{Map, Value};
use url::{Position, Url};

use crate::{
    client_metadata::ClientMetadata,
    client_name::clean_name,
    document_cache::DocumentCache,
    fetch::{self, Fetch, FetchError},
    ids::ClientId,
    jwt::KeySet,
    ports::Clock,
    records::{ClientAuth, ClientRecord},
    redirect_uri,
};

/// The metadata documents of clients, and the key sets to which clients refer.
#[derive(Debug)]
pub(crate) struct ClientDocuments {
    clients: DocumentCache<ClientRecord>,
    key_sets: DocumentCache<KeySet>,
}

/// The longest document, in bytes (the draft, section 6.6).
const MAX_DOCUMENT: usize = 5 * 1024;
/// The longest key set, in bytes.
const MAX_KEY_SET: usize = 32 * 1024;

impl ClientDocuments {
    pub(crate) fn new(fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>) -> Self {
        Self {
            clients: DocumentCache::new(Arc::clone(&fetch), Arc::clone(&clock), MAX_DOCUMENT),
            key_sets: DocumentCache::new(fetch, clock, MAX_KEY_SET),
        }
    }

    /// The client of an identifier, with its URL from [`client_url`].
    ///
    /// # Errors
    ///
    /// Any [`FetchError`].
    pub(crate) async fn client(&self, client_id: &ClientId, url: &Url) -> Result<Arc<ClientRecord>, FetchError> {
        let parse = |json: &[u8]| parse_client(json, client_id, url);
        self.clients.get(&client_id.0, url, false, parse).await
    }

    /// The last known copy of a client, without a network request.
    pub(crate) fn cached_client(&self, client_id: &str) -> Option<ClientRecord> {
        self.clients.cached(client_id).map(|client| (*client).clone())
    }

    /// The key set at a URL. `reload` asks for a newer copy, for a caller that misses a key in the
    /// cached one.
    ///
    /// # Errors
    ///
    /// Any [`FetchError`].
    pub(crate) async fn key_set(&self, uri: &str, reload: bool) -> Result<Arc<KeySet>, FetchError> {
        let url = fetch::check_url(uri).map_err(FetchError::Forbidden)?;
        self.key_sets.get(uri, &url, reload, KeySet::parse).await
    }
}

/// Returns whether a client identifier has the form of a URL.
pub(crate) fn is_url(client_id: &str) -> bool {
    client_id.starts_with("https://")
}

/// Checks the URL of a document (the draft, section 3). It may have uppercase letters in its host
/// and any port, the default one included; nothing else may differ from the form in which a URL is
/// parsed.
///
/// # Errors
///
/// The reason.
pub(crate) fn client_url(client_id: &str) -> Result<Url, &'static str> {
    let url = fetch::check_url(client_id)?;
    let after_scheme = client_id.strip_prefix("https://").unwrap_or_default();
    let Some((authority, path)) = after_scheme.find('/').map(|at| after_scheme.split_at(at)) else {
        return Err("the URL must have a path");
    };
    let authority = authority.to_ascii_lowercase();
    let without_default_port = authority.strip_suffix(":443").unwrap_or(&authority);
    if without_default_port != &url[Position::BeforeHost..Position::AfterPort] {
        return Err("the URL must have a host name that is not encoded, and no more than a port after it");
    }
    if path != &url[Position::BeforePath..] {
        return Err("the URL must not have dot segments or characters that need encoding");
    }
    // The parser keeps encoded dots, which the server of the document may decode.
    let path = url.path().to_ascii_lowercase().replace("%2e", ".");
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("the URL must not have dot segments");
    }
    Ok(url)
}

/// Reads a document (the draft, section 4.1; MCP 2026-07-28 client registration, "Client ID
/// Metadata Documents").
fn parse_client(json: &[u8], client_id: &ClientId, url: &Url) -> Result<ClientRecord, &'static str> {
    let object: Map<String, Value> = serde_json::from_slice(json).map_err(|_| "the document is not a JSON object")?;
    let has = |member: &str| object.get(member).is_some_and(|value| !value.is_null());
    if object.get("client_id").and_then(Value::as_str) != Some(&client_id.0) {
        return Err("client_id is not the URL of the document");
    }
    if has("client_secret") || has("client_secret_expires_at") {
        return Err("the document contains a client_secret");
    }
    let metadata = ClientMetadata::from_object(object).ok_or("the document is not client metadata")?;
    metadata.check_flow()?;
    let redirect_uris = metadata.redirect_uris.clone().unwrap_or_default();
    let redirect_uris = redirect_uri::allowed(redirect_uris, redirect_uri::check)?;
    let name = metadata.client_name.as_deref().and_then(clean_name);
    let name = name.ok_or("client_name is missing")?;
    let auth = match metadata.token_endpoint_auth_method.as_deref() {
        // The default of RFC 7591 section 2 is client_secret_basic, which a document cannot mean.
        None | Some("none") => ClientAuth::None,
        Some("private_key_jwt") => ClientAuth::PrivateKeyJwt(metadata.into_key_source()?),
        Some(_) => return Err("token_endpoint_auth_method must be none or private_key_jwt"),
    };
    Ok(ClientRecord {
        client_id: client_id.clone(),
        name: Some(name),
        redirect_uris,
        auth,
        application_type: None,
        created_at: UNIX_EPOCH,
        // With its port unless that is the default.
        domain: Some(url[Position::BeforeHost..Position::AfterPort].to_owned()),
        registration_token: None,
        fingerprint: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::records::KeySource;

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
        parse(document.to_string().as_bytes())
    }

    fn parse(json: &[u8]) -> Result<ClientRecord, &'static str> {
        parse_client(json, &ClientId(URL.to_owned()), &Url::parse(URL).unwrap())
    }

    #[test]
    fn a_document_becomes_a_client_with_the_domain_of_its_host() {
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
    fn redirect_uris_that_are_not_allowed_are_dropped_from_a_document() {
        let uris = ["x-client:/callback", "https://client.example/callback", "ssh://-o"];
        let client = document(&json!({ "redirect_uris": uris })).unwrap();
        assert_eq!(client.redirect_uris, ["https://client.example/callback"]);
    }

    #[test]
    fn an_invalid_document_is_refused() {
        for changes in [
            json!({"client_id": "https://client.example/other.json"}),
            json!({"client_id": "https://client.example/metadata.json/"}),
            json!({"client_id": "https://client.example:443/metadata.json"}),
            json!({"client_id": "https://CLIENT.example/metadata.json"}),
            json!({"client_id": "HTTPS://client.example/metadata.json"}),
            json!({"client_id": [URL]}),
            json!({"client_id": null}),
            json!({"client_name": ""}),
            json!({"client_name": null}),
            json!({"redirect_uris": []}),
            json!({"redirect_uris": "https://client.example/"}),
            json!({"redirect_uris": ["javascript:alert(1)", "x-client:/callback"]}),
            json!({"redirect_uris": ["http://client.example/"]}),
            json!({"redirect_uris": ["https://client.example/?iss=https://evil.example"]}),
            json!({"client_secret": "x"}),
            json!({"client_secret_expires_at": 0}),
            json!({"token_endpoint_auth_method": "client_secret_basic"}),
            json!({"token_endpoint_auth_method": "client_secret_post"}),
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
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_document_is_only_the_client_that_it_names() {
        for name in [
            "https://CLIENT.example:443/metadata.json",
            "https://client.example:443/metadata.json",
        ] {
            let (id, url) = (ClientId(name.to_owned()), client_url(name).unwrap());
            assert_eq!(url.as_str(), URL, "it is read there");
            let own = json!({"client_id": name, "client_name": "A", "redirect_uris": ["https://client.example/"]});
            let client = parse_client(own.to_string().as_bytes(), &id, &url).unwrap();
            assert_eq!(
                (client.client_id, client.domain.as_deref()),
                (id.clone(), Some("client.example"))
            );
            let other = json!({"client_id": URL, "client_name": "A", "redirect_uris": ["https://client.example/"]});
            assert!(parse_client(other.to_string().as_bytes(), &id, &url).is_err());
        }
    }

    #[test]
    fn a_client_url_follows_section_3() {
        for good in [
            URL,
            "https://client.example/",
            "https://client.example:8443/a/b",
            "https://client.example/a?b=c",
            "https://client.example:443/a",
            "https://CLIENT.example/a",
            "https://client.example/a%20b",
            "https://client.example/..a/.b/c..",
        ] {
            assert!(client_url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://client.example",
            "https://client.example?b=c",
            "https://client.example:0443/a",
            "https://client.example:/a",
            "https://@client.example/a",
            "https://%63lient.example/a",
            "https://client.example/a/../b",
            "https://client.example/a/..",
            "https://client.example/a\"b",
            "https://client.example/./a",
            "https://client.example/%2e%2E/a",
            "https://client.example/a#b",
            "https://user@client.example/a",
            "http://client.example/a",
            "https://10.0.0.1/a",
        ] {
            assert!(client_url(bad).is_err(), "{bad}");
        }
    }
}
