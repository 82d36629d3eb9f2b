//! What an attacker tries, over real HTTP against the program, and what comes of it.
//!
//! Each case has a test of its own:
//!
//! | what has gone wrong elsewhere | here |
//! |---|---|
//! | command injection from metadata (CVE-2025-6514), a command that the caller chooses (CVE-2025-49596) | [`child`] |
//! | default secrets, another tenant's cache, Forgejo's tokens passed through | [`child`] |
//! | DNS rebinding, a poisoned `Host`, oversized requests | [`requests`] |
//! | guessed and stolen sessions (CVE-2025-6515) | [`requests`]; answers to the wrong client: `isolation` |
//! | the confused deputy, consent in one browser and callback in another (CVE-2026-27124), mix-up, a forged consent | [`consent`] |
//! | redirect URIs that are not checked (CVE-2025-4143), markup in what a client says of itself | [`registration`] |
//! | request forgery through metadata: by addresses (CVE-2026-26118) | [`registration`]; by names, redirects and documents: [`documents`] |
//! | floods of registrations; of sign-ins and of requests for tokens | [`registration`]; [`floods`] |
//! | PKCE downgrade (CVE-2025-4144), replayed codes, stolen refresh tokens, revocation of the wrong token | [`tokens`] |
//!
//! That secrets are compared in constant time is by construction (they are looked up by their hash, and compared by one
//! function of the crate `oauth`); no test of it over HTTP would prove anything.

mod child;
mod consent;
mod documents;
mod floods;
mod registration;
mod requests;
mod tokens;

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use testkit::{Client, http_client};
use url::{Url, form_urlencoded};

use crate::harness::Harness;

/// HTTP without a client's manners: sends what it is told and follows nothing.
#[derive(Clone, Debug)]
struct Attacker {
    http: reqwest::Client,
    base: String,
}

/// What came back.
#[derive(Clone, Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

/// Where clients of these tests get their answers; nobody listens there, and no browser asks for it.
const REDIRECT: &str = "https://client.example/callback";

impl Attacker {
    fn of(harness: &Harness) -> Self {
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
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", path, &headers, form).await.unwrap()
    }

    async fn register(&self, metadata: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        self.send("POST", "/oauth/register", &headers, metadata.to_string())
            .await
            .unwrap()
    }

    /// Registers a public client and gives its id.
    async fn client(&self, name: &str, redirect_uri: &str) -> String {
        let reply = self.register(&public_client(name, redirect_uri)).await;
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

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The metadata of a public client.
fn public_client(name: &str, redirect_uri: &str) -> Value {
    json!({
        "client_name": name,
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    })
}

/// A client that is registered under this name and knows where everything is.
async fn prepared(harness: &Harness, name: &str, redirect_uri: &str) -> Client {
    let client = harness.client().with_redirect_uri(redirect_uri);
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.set_client(&Attacker::of(harness).client(name, redirect_uri).await, None);
    client
}

/// A parameter of the query.
fn parameter(url: &Url, wanted: &str) -> Option<String> {
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
fn path_of(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}
