//! The shared server's endpoint: one HTTP exchange, and its headers.
//!
//! Every header of a request is made here, from the state of the session. No redirect is followed
//! and no proxy is read from the environment, since either would take a user's token to a host that
//! the operator has not named.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{error::SharedServerError, renewal_limiter::RenewalLimiter};

/// Names the session (MCP 2025-11-25, transports, "Session Management").
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The idle time after which the kernel probes a connection.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Address and limits of a shared server.
#[derive(Clone, Debug)]
pub(crate) struct EndpointConfig {
    pub(crate) url: Url,
    pub(crate) connect_timeout: Duration,
    /// The longest message that is accepted from it, in bytes.
    pub(crate) max_message: usize,
    /// The time limit of the final DELETE.
    pub(crate) stop_grace: Duration,
}

/// The endpoint of a shared server. All sessions share it and its connections. A connection carries
/// one exchange at a time, and keeps nothing of a session.
pub(crate) struct Endpoint {
    http: reqwest::Client,
    pub(super) renewal_limiter: RenewalLimiter,
    pub(super) config: EndpointConfig,
}

/// The headers that name a session at the server; empty before the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionHeaders {
    /// The session id of the server. No client ever sees it.
    pub(super) session: Option<HeaderValue>,
    /// The negotiated protocol version.
    pub(super) version: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
pub(super) enum UpstreamRequest {
    /// A message.
    Post(Bytes),
    /// The server's own messages, after this event if there is one.
    Listen(Option<String>),
    Delete,
}

impl Endpoint {
    /// An endpoint. It does not connect yet.
    pub(crate) fn new(config: EndpointConfig) -> Result<Self, reqwest::Error> {
        // The first provider that is installed stays; in every process with a broker it is this
        // one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Over HTTP/2 all sessions would share one connection, and listening streams would use
            // up its concurrent streams.
            .http1_only()
            .connect_timeout(config.connect_timeout)
            .tcp_keepalive(TCP_KEEPALIVE)
            .user_agent("forgejo-mcp-broker")
            .build()?;
        Ok(Self {
            http,
            renewal_limiter: RenewalLimiter::default(),
            config,
        })
    }

    /// One exchange, up to the head of the response. Dropping the future, or the response, ends it.
    ///
    /// # Errors
    ///
    /// [`SharedServerError::Unreachable`] and [`SharedServerError::InvalidToken`].
    pub(super) async fn send(
        &self,
        request: &UpstreamRequest,
        headers: &SessionHeaders,
        token: Option<&SecretString>,
    ) -> Result<reqwest::Response, SharedServerError> {
        let method = match request {
            UpstreamRequest::Post(_) => Method::POST,
            UpstreamRequest::Listen(_) => Method::GET,
            UpstreamRequest::Delete => Method::DELETE,
        };
        let mut builder = self.http.request(method, self.config.url.clone());
        if let Some(token) = token {
            builder = builder.header(header::AUTHORIZATION, bearer(token)?);
        }
        if let Some(session) = &headers.session {
            builder = builder.header(SESSION_ID, session);
        }
        if let Some(version) = &headers.version {
            builder = builder.header(PROTOCOL_VERSION, version);
        }
        builder = match request {
            UpstreamRequest::Post(message) => builder
                .header(header::ACCEPT, "application/json, text/event-stream")
                .header(header::CONTENT_TYPE, "application/json")
                .body(message.clone()),
            UpstreamRequest::Listen(last_event_id) => {
                let builder = builder.header(header::ACCEPT, "text/event-stream");
                match last_event_id {
                    Some(id) => builder.header(LAST_EVENT_ID, id),
                    None => builder,
                }
            }
            UpstreamRequest::Delete => builder,
        };
        builder.send().await.map_err(unreachable)
    }

    /// The whole body of a response.
    ///
    /// # Errors
    ///
    /// [`SharedServerError::BrokenOff`] and [`SharedServerError::TooLong`].
    pub(super) async fn read_body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, SharedServerError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| SharedServerError::BrokenOff)? {
            if body.len() + chunk.len() > self.config.max_message {
                return Err(SharedServerError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Compares the media type of a response, without its parameters.
pub(super) fn has_media_type(response: &reqwest::Response, wanted: &str) -> bool {
    let given = response.headers().get(header::CONTENT_TYPE);
    given.and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(wanted)
    })
}

fn bearer(token: &SecretString) -> Result<HeaderValue, SharedServerError> {
    let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
    let mut value = value.map_err(|_| SharedServerError::InvalidToken)?;
    // The HTTP stack does not log sensitive values.
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(error: reqwest::Error) -> SharedServerError {
    SharedServerError::Unreachable(error.without_url())
}
