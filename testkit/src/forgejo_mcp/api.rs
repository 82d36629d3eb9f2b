//! Calls to Forgejo's API.

use std::time::Duration;

use http::{StatusCode, header::AUTHORIZATION};
use serde_json::Value;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Api {
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("bad URL {url:?}: {error}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("bad URL {url:?}: not http"));
        }
        Ok(Self {
            http: crate::http_client::client(TIMEOUT),
            base: url.trim_end_matches('/').to_owned(),
            token,
        })
    }

    pub(super) fn with_token(&self, token: Option<String>) -> Self {
        Self {
            http: self.http.clone(),
            base: self.base.clone(),
            token: token.or_else(|| self.token.clone()),
        }
    }

    pub(super) async fn user(&self) -> Result<Value, String> {
        self.get("/api/v1/user").await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("token {token}"));
        }
        let failed = |error: reqwest::Error| format!("GET {path}: {error}");
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        match serde_json::from_slice::<Value>(&body) {
            Ok(json) if status == StatusCode::OK => Ok(json),
            Ok(json) => Err(json["message"]
                .as_str()
                .map_or_else(|| format!("GET {path}: {status}"), str::to_owned)),
            Err(_) => Err(format!("GET {path}: {status}")),
        }
    }
}
