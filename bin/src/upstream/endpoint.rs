//! The shared server's endpoint: one HTTP exchange with it, and which headers that has.
//!
//! Every header of a request is made here, from what the link knows. No redirect is followed and no proxy is read from the
//! environment, since either would take a user's token to a place that the operator has not named.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{renewals::Renewals, trouble::Trouble};

/// Names the session (MCP 2025-11-25, transports, "Session Management").
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// After how long a silent connection is tested for whether anyone is there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Where the server is, and what is asked of it.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The URL of its MCP endpoint.
    pub url: Url,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// The longest message that is taken from it, in bytes.
    pub max_message: usize,
    /// How long an orderly goodbye may take.
    pub stop_grace: Duration,
}

/// The endpoint of a shared server. It is the same for all sessions, and so are its connections, which carry one exchange at a time: nothing
/// of a session stays on one.
pub struct Endpoint {
    http: reqwest::Client,
    pub(super) renewals: Renewals,
    pub(super) config: EndpointConfig,
}

/// What the server has said about a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The id by which it knows the session. No client ever sees it.
    pub(super) session: Option<HeaderValue>,
    /// The protocol version that was negotiated.
    pub(super) version: Option<HeaderValue>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// A message.
    Post(Bytes),
    /// The wish to listen, behind an event if one is named.
    Listen(Option<String>),
    /// The end of the session.
    Delete,
}

impl Endpoint {
    /// An endpoint. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// If no HTTP client can be made.
    pub fn new(config: EndpointConfig) -> Result<Self, reqwest::Error> {
        // Whoever installs a provider first wins; it is this one in every process that has a broker in it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Over HTTP/2 all sessions would share one connection, and the streams that listen would use up what it may carry at once.
            .http1_only()
            .connect_timeout(config.connect_timeout)
            .tcp_keepalive(TCP_KEEPALIVE)
            .user_agent("forgejo-mcp-broker")
            .build()?;
        Ok(Self {
            http,
            renewals: Renewals::default(),
            config,
        })
    }

    /// One exchange, up to the head of the answer. Dropping the future, or the answer, ends it.
    ///
    /// # Errors
    ///
    /// [`Trouble::Unreachable`] and [`Trouble::UnsendableToken`].
    pub(super) async fn send(
        &self,
        call: &Call,
        standing: &Standing,
        token: Option<&SecretString>,
    ) -> Result<reqwest::Response, Trouble> {
        let method = match call {
            Call::Post(_) => Method::POST,
            Call::Listen(_) => Method::GET,
            Call::Delete => Method::DELETE,
        };
        let mut request = self.http.request(method, self.config.url.clone());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, bearer(token)?);
        }
        if let Some(session) = &standing.session {
            request = request.header(SESSION_ID, session);
        }
        if let Some(version) = &standing.version {
            request = request.header(PROTOCOL_VERSION, version);
        }
        request = match call {
            Call::Post(message) => request
                .header(header::ACCEPT, "application/json, text/event-stream")
                .header(header::CONTENT_TYPE, "application/json")
                .body(message.clone()),
            Call::Listen(last_event_id) => {
                let request = request.header(header::ACCEPT, "text/event-stream");
                match last_event_id {
                    Some(id) => request.header(LAST_EVENT_ID, id),
                    None => request,
                }
            }
            Call::Delete => request,
        };
        request.send().await.map_err(unreachable)
    }

    /// The whole of an answer.
    ///
    /// # Errors
    ///
    /// [`Trouble::BrokenOff`] and [`Trouble::TooLong`].
    pub(super) async fn whole(&self, mut response: reqwest::Response) -> Result<Vec<u8>, Trouble> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Trouble::BrokenOff)? {
            if body.len() + chunk.len() > self.config.max_message {
                return Err(Trouble::TooLong);
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

/// Whether an answer is of this media type, whatever its parameters.
pub(super) fn is_of_type(response: &reqwest::Response, wanted: &str) -> bool {
    let given = response.headers().get(header::CONTENT_TYPE);
    given.and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(wanted)
    })
}

fn bearer(token: &SecretString) -> Result<HeaderValue, Trouble> {
    let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
    let mut value = value.map_err(|_| Trouble::UnsendableToken)?;
    // Keeps it out of the traces of the HTTP stack.
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(error: reqwest::Error) -> Trouble {
    Trouble::Unreachable(error.without_url())
}
