//! Known attacks, over real HTTP against the program. Each case has its own test:
//!
//! | attack seen elsewhere | tested in |
//! |---|---|
//! | command injection from metadata (CVE-2025-6514) | [`child`] |
//! | a command that the caller chooses (CVE-2025-49596) | [`child`] |
//! | default secrets, another tenant's cache, Forgejo tokens passed through | [`child`] |
//! | DNS rebinding, a poisoned `Host`, oversized requests | [`requests`] |
//! | guessed and stolen session ids (CVE-2025-6515) | [`requests`] |
//! | responses that reach the wrong client | `isolation` |
//! | confused deputy, mix-up, forged consent | [`consent`] |
//! | consent in one browser, callback in another (CVE-2026-27124) | [`consent`] |
//! | unchecked redirect URIs (CVE-2025-4143), markup in client metadata | [`registration`] |
//! | request forgery by addresses in metadata (CVE-2026-26118) | [`registration`] |
//! | request forgery by host names, redirects and documents | [`documents`] |
//! | floods of registrations | [`registration`] |
//! | floods of sign-ins and token requests | [`floods`] |
//! | PKCE downgrade (CVE-2025-4144), replayed codes | [`tokens`] |
//! | stolen refresh tokens, revocation of another token | [`tokens`] |
//! | forged, replayed and foreign `requestState` | [`request_states`] |
//! | headers that differ from the body | [`mirrored_headers`] |
//! | floods of calls that wait for answers, and of capabilities | [`parked_calls`] |
//!
//! No test over HTTP can show that secrets are compared in constant time. The code ensures it:
//! secrets are looked up by their hash and compared by one function of the crate `oauth`.

mod child;
mod connections;
mod consent;
mod documents;
mod floods;
mod mirrored_headers;
mod parked_calls;
mod registration;
mod request_states;
mod requests;
mod tokens;

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use testkit::{Client, http_client};
use url::{Url, form_urlencoded};

use crate::harness::Harness;

/// A plain HTTP client that sends any request and follows no redirect.
#[derive(Clone, Debug)]
struct Attacker {
    http: reqwest::Client,
    base: String,
}

/// A response that has been read.
#[derive(Clone, Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

/// The redirect URI of the clients in these tests. No server listens there, and no browser requests
/// it.
const REDIRECT: &str = "https://client.example/callback";

impl Attacker {
    fn new(harness: &Harness) -> Self {
        Self {
            http: http_client::client(Duration::from_secs(30)),
            base: harness.broker.url(),
        }
    }

    /// Sends a request; `path` begins with a slash.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Reply, reqwest::Error> {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body).send().await?;
        Ok(Reply {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers, "").await.unwrap()
    }

    async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.send("POST", path, &[FORM_TYPE], form_body(fields)).await.unwrap()
    }

    async fn register(&self, metadata: &Value) -> Reply {
        self.send("POST", "/oauth/register", &[JSON_TYPE], metadata.to_string())
            .await
            .unwrap()
    }

    /// Registers a public client and returns its id.
    async fn register_client(&self, name: &str, redirect_uri: &str) -> String {
        let reply = self.register(&public_client_metadata(name, redirect_uri)).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
        reply.json()["client_id"].as_str().unwrap().to_owned()
    }
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The `error` of an OAuth error response.
    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    fn is_redirect(&self) -> bool {
        self.headers.contains_key(header::LOCATION)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

const FORM_TYPE: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON_TYPE: (&str, &str) = ("content-type", "application/json");

/// The body of a form with these fields.
fn form_body<'a>(fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// The metadata of a public client.
fn public_client_metadata(name: &str, redirect_uri: &str) -> Value {
    json!({
        "client_name": name,
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    })
}

/// A client that has discovered the endpoints and is registered under this name.
async fn registered_client(harness: &Harness, name: &str, redirect_uri: &str) -> Client {
    let client = harness.client().with_redirect_uri(redirect_uri);
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.set_client(&Attacker::new(harness).register_client(name, redirect_uri).await, None);
    client
}

/// A parameter of the query.
fn query_parameter(url: &Url, wanted: &str) -> Option<String> {
    let found = url.query_pairs().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.into_owned())
}

/// The same URL with one parameter replaced, added or (with `None`) left out.
fn with_parameter(url: &Url, wanted: &str, value: Option<&str>) -> Url {
    let mut others: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .filter(|(name, _)| name != wanted)
        .collect();
    others.extend(value.map(|value| (wanted.to_owned(), value.to_owned())));
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(others);
    changed
}

/// Path and query of a URL of the broker.
fn path_and_query(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}
