//! A scripted MCP client: OAuth sign-in and Streamable HTTP, each step on its own and recorded.
//!
//! The methods named after steps ([`probe`](Client::probe), [`initialize`](Client::initialize), ...) expect the right answer
//! and fail on any other; the ones below them ([`request`](Client::request), [`post`](Client::post),
//! [`raw`](Client::raw), [`token_request`](Client::token_request)) give whatever came, for tests of refusals. All of them take
//! `&self`, so that calls of one session can run at once. Left out: retries and recovery of any kind, and calls that
//! a server makes to its client.

mod answer;
mod discovery;
mod mcp;
mod oauth;
mod sign_in;
mod sse;
mod steps;
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

pub use self::{
    answer::Answer,
    sse::{Event, EventStream},
    steps::Step,
};
use self::{sign_in::SignIn, steps::Steps};
use crate::{browser::BrowserError, plain};

/// An MCP client with at most one session; [`another_session`](Client::another_session) makes more.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    mcp_url: Url,
    redirect_uri: String,
    sign_in: SignIn,
    /// Its fields do not depend on each other, so a poisoned lock is still whole; never held across an await.
    session: Mutex<Session>,
    next_id: AtomicI64,
    steps: Steps,
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No answer came, or not all of it.
    #[error("no answer")]
    Transport(#[source] reqwest::Error),
    /// An answer came with another status than it should have.
    #[error("answered {status}: {body}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The body, shortened.
        body: String,
    },
    /// The answer is a JSON-RPC error.
    #[error("JSON-RPC error {code}: {message}")]
    Rpc {
        /// Its code.
        code: i64,
        /// Its message.
        message: String,
    },
    /// The authorization came back as an error response.
    #[error("not authorized: {error} ({description})")]
    Denied {
        /// Its `error`.
        error: String,
        /// Its `error_description`.
        description: String,
    },
    /// The person did not come through.
    #[error("the browser did not come through: {0}")]
    Browser(#[from] BrowserError),
    /// The answer is none that a client in the field would accept.
    #[error("{0}")]
    Unexpected(String),
    /// This step needs another one before it.
    #[error("{0} comes first")]
    TooEarly(&'static str),
}

#[derive(Debug, Clone, Default)]
struct Session {
    id: Option<String>,
    protocol_version: Option<String>,
}

/// Where the client pretends to listen; nobody does.
const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";

/// How long one exchange may take, streams of answers included.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// A client of the server at this URL that knows nothing yet.
    pub fn new(mcp_url: Url) -> Self {
        Self {
            http: plain::client(TIMEOUT),
            mcp_url,
            redirect_uri: REDIRECT_URI.to_owned(),
            sign_in: SignIn::default(),
            session: Mutex::default(),
            next_id: AtomicI64::new(1),
            steps: Steps::default(),
        }
    }

    /// The same with another redirect URI.
    #[must_use]
    pub fn with_redirect_uri(mut self, redirect_uri: &str) -> Self {
        redirect_uri.clone_into(&mut self.redirect_uri);
        self
    }

    /// A client that shares this one's registration and tokens, later ones too, and has no session yet.
    #[must_use]
    pub fn another_session(&self) -> Self {
        Self {
            http: self.http.clone(),
            mcp_url: self.mcp_url.clone(),
            redirect_uri: self.redirect_uri.clone(),
            sign_in: self.sign_in.clone(),
            session: Mutex::default(),
            next_id: AtomicI64::new(1),
            steps: Steps::default(),
        }
    }

    /// The same, connecting anew for each request. A request on a connection that the server is just closing is lost by the
    /// rules of HTTP (RFC 9112 section 9.3.1); on a new connection it is not.
    #[must_use]
    pub fn with_fresh_connections(mut self) -> Self {
        self.http = plain::fresh_connections(TIMEOUT);
        self
    }

    /// The steps taken so far, in the order in which they ended.
    pub fn steps(&self) -> Vec<Step> {
        self.steps.all()
    }

    /// The redirect URI.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// The client id, once registered.
    pub fn client_id(&self) -> Option<String> {
        self.sign_in.known().client_id.clone()
    }

    /// Makes the client a pre-registered one; with a secret it is sent in the form (`client_secret_post`).
    pub fn set_client(&self, id: &str, secret: Option<&str>) {
        let mut known = self.sign_in.known();
        known.client_id = Some(id.to_owned());
        known.client_secret = secret.map(str::to_owned);
    }

    /// The authorization code that came last.
    pub fn code(&self) -> Option<String> {
        self.sign_in.known().code.clone()
    }

    /// The verifier of the authorization that began last.
    pub fn verifier(&self) -> Option<String> {
        let known = self.sign_in.known();
        known.pending.as_ref().map(|pending| pending.verifier.clone())
    }

    /// The access token.
    pub fn access_token(&self) -> Option<String> {
        self.sign_in.known().access_token.clone()
    }

    /// Replaces the access token, here and in all sessions of this sign-in.
    pub fn set_access_token(&self, token: Option<&str>) {
        self.sign_in.known().access_token = token.map(str::to_owned);
    }

    /// The refresh token.
    pub fn refresh_token(&self) -> Option<String> {
        self.sign_in.known().refresh_token.clone()
    }

    /// Replaces the refresh token, here and in all sessions of this sign-in.
    pub fn set_refresh_token(&self, token: Option<&str>) {
        self.sign_in.known().refresh_token = token.map(str::to_owned);
    }

    /// The session id.
    pub fn session_id(&self) -> Option<String> {
        self.session().id.clone()
    }

    /// Replaces the session id.
    pub fn set_session_id(&self, id: Option<&str>) {
        self.session().id = id.map(str::to_owned);
    }

    fn session(&self) -> MutexGuard<'_, Session> {
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
    /// The HTTP status behind the error, if there is one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::Browser(BrowserError::Stuck { status, .. }) => Some(*status),
            Self::Rpc { .. } => Some(StatusCode::OK),
            Self::Transport(_) | Self::Denied { .. } | Self::Browser(_) | Self::Unexpected(_) | Self::TooEarly(_) => {
                None
            }
        }
    }
}
