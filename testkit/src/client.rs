//! A scripted MCP client: OAuth sign-in and Streamable HTTP, each step on its own.
//!
//! The methods named after steps ([`probe`](Client::probe), [`initialize`](Client::initialize),
//! ...) expect success and return an error for any other answer. [`request`](Client::request),
//! [`post`](Client::post), [`raw`](Client::raw) and [`token_request`](Client::token_request) return
//! every answer, for tests of refusals. All of them take `&self`, so that calls of one session can
//! run at once. A request of the server is an event of a stream like any other, for the test to
//! answer. Left out: retries and recovery.

mod answer;
mod discovery;
mod mcp;
mod modern;
mod oauth;
mod sign_in;
mod sse;
#[cfg(test)]
mod tests;

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use thiserror::Error;
use url::Url;

use self::sign_in::SignIn;
pub use self::{
    answer::Answer,
    mcp::Posted,
    modern::{MODERN_PROTOCOL, ModernClient, Reply},
    sse::{Event, EventStream},
};
use crate::{browser::BrowserError, http_client};

/// An MCP client with at most one session; [`another_session`](Client::another_session) makes more.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    mcp_url: Url,
    redirect_uri: String,
    sign_in: SignIn,
    /// The fields are independent, so a poisoned lock is still consistent; never held across an
    /// await.
    session: Mutex<McpSession>,
    next_id: AtomicI64,
}

#[derive(Debug, Error)]
pub enum ClientError {
    /// No answer came, or an incomplete one.
    #[error("no answer")]
    Transport(#[source] reqwest::Error),
    #[error("the stream of events broke")]
    Stream(#[source] sse_stream::Error),
    #[error("answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("JSON-RPC error {code}: {message}")]
    Rpc { code: i64, message: String },
    #[error("not authorized: {error} ({description})")]
    Denied { error: String, description: String },
    #[error("the browser did not reach the redirect URI: {0}")]
    Browser(#[from] BrowserError),
    #[error("{0}")]
    Unexpected(String),
    #[error("{0} comes first")]
    TooEarly(&'static str),
}

#[derive(Debug, Clone, Default)]
struct McpSession {
    id: Option<String>,
    protocol_version: Option<String>,
}

/// The default redirect URI; nothing listens there.
const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";

/// The time limit of one exchange, the end of its stream included.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    pub fn new(mcp_url: Url) -> Self {
        Self {
            http: http_client::client(TIMEOUT),
            mcp_url,
            redirect_uri: REDIRECT_URI.to_owned(),
            sign_in: SignIn::default(),
            session: Mutex::default(),
            next_id: AtomicI64::new(1),
        }
    }

    /// A client that shares this one's registration and tokens, later ones too, and has no session
    /// yet.
    #[must_use]
    pub fn another_session(&self) -> Self {
        Self {
            http: self.http.clone(),
            redirect_uri: self.redirect_uri.clone(),
            sign_in: self.sign_in.clone(),
            ..Self::new(self.mcp_url.clone())
        }
    }

    #[must_use]
    pub fn with_redirect_uri(mut self, redirect_uri: &str) -> Self {
        redirect_uri.clone_into(&mut self.redirect_uri);
        self
    }

    /// The same client with a new connection for each request. HTTP may lose a request on a
    /// connection that the server is closing (RFC 9112 section 9.3.1), but not on a new one.
    #[must_use]
    pub fn without_keep_alive(mut self) -> Self {
        self.http = http_client::without_keep_alive(TIMEOUT);
        self
    }

    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    pub fn client_id(&self) -> Option<String> {
        self.sign_in.state().client_id.clone()
    }

    /// Makes the client a pre-registered one; it sends a secret in the form (`client_secret_post`).
    pub fn set_client(&self, id: &str, secret: Option<&str>) {
        let mut state = self.sign_in.state();
        state.client_id = Some(id.to_owned());
        state.client_secret = secret.map(str::to_owned);
    }

    pub fn code(&self) -> Option<String> {
        self.sign_in.state().code.clone()
    }

    pub fn verifier(&self) -> Option<String> {
        let state = self.sign_in.state();
        state.pending.as_ref().map(|pending| pending.verifier.clone())
    }

    pub fn access_token(&self) -> Option<String> {
        self.sign_in.state().access_token.clone()
    }

    /// Replaces the access token, here and in all sessions of this sign-in.
    pub fn set_access_token(&self, token: Option<&str>) {
        self.sign_in.state().access_token = token.map(str::to_owned);
    }

    pub fn refresh_token(&self) -> Option<String> {
        self.sign_in.state().refresh_token.clone()
    }

    /// Replaces the refresh token, here and in all sessions of this sign-in.
    pub fn set_refresh_token(&self, token: Option<&str>) {
        self.sign_in.state().refresh_token = token.map(str::to_owned);
    }

    pub fn session_id(&self) -> Option<String> {
        self.session().id.clone()
    }

    pub fn set_session_id(&self, id: Option<&str>) {
        self.session().id = id.map(str::to_owned);
    }

    /// Continues a session that was opened elsewhere.
    pub fn resume_session(&self, id: &str, protocol_version: &str) {
        *self.session() = McpSession {
            id: Some(id.to_owned()),
            protocol_version: Some(protocol_version.to_owned()),
        };
    }

    fn session(&self) -> MutexGuard<'_, McpSession> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, method: Method, url: &Url, headers: HeaderMap, body: Bytes) -> Result<Answer, ClientError> {
        let mut request = self.http.request(method, url.clone()).headers(headers);
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await.map_err(ClientError::Transport)?;
        Answer::read(response).await
    }
}

impl ClientError {
    pub fn status(&self) -> Option<StatusCode> {
        if let Self::Refused { status, .. } | Self::Browser(BrowserError::Stuck { status, .. }) = self {
            return Some(*status);
        }
        matches!(self, Self::Rpc { .. }).then_some(StatusCode::OK)
    }

    fn unexpected(what: impl Into<String>) -> Self {
        Self::Unexpected(what.into())
    }
}
