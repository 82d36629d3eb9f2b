//! The few calls to Forgejo's API, with the token of the process.

use std::time::Duration;

use http::{StatusCode, header::AUTHORIZATION};
use serde_json::Value;
use url::Url;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An instance and the token for it.
pub(super) struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Api {
    /// Checks the URL; asks nothing yet.
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("bad URL {url:?}: {error}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("bad URL {url:?}: not http"));
        }
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self {
            http: crate::plain::client(TIMEOUT),
            base,
            token,
        })
    }

    /// The same instance with the token of a request, if it has one.
    pub(super) fn with_token(&self, token: Option<String>) -> Self {
        Self {
            http: self.http.clone(),
            base: self.base.clone(),
            token: token.or_else(|| self.token.clone()),
        }
    }

    /// The instance's version.
    pub(super) async fn version(&self) -> Result<Value, String> {
        self.fetch("/api/v1/version").await
    }

    /// The user to whom the token belongs.
    pub(super) async fn user(&self) -> Result<Value, String> {
        self.fetch("/api/v1/user").await
    }

    /// A page of the user's repositories.
    pub(super) async fn repositories(&self, page: u64, limit: u64) -> Result<Value, String> {
        self.fetch(&format!("/api/v1/user/repos?page={page}&limit={limit}"))
            .await
    }

    /// GET; the error is Forgejo's own message where there is one.
    async fn fetch(&self, path: &str) -> Result<Value, String> {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("token {token}"));
        }
        let response = request.send().await.map_err(|error| format!("GET {path}: {error}"))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| format!("GET {path}: {error}"))?;
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        match json {
            Some(json) if status == StatusCode::OK => Ok(json),
            Some(json) if json["message"].is_string() => Err(json["message"].as_str().unwrap_or_default().to_owned()),
            Some(_) | None => Err(format!("GET {path}: {status}")),
        }
    }
}
