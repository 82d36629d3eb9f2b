//! The server's endpoint: one HTTP exchange, and its headers.
//!
//! Every header of a request is made here, from the state of the session. No redirect is followed
//! and no proxy is read from the environment, since either would take a user's token to a host that
//! the operator has not named.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::{Body, Frame, SizeHint};
use reqwest::Url;

use super::{era_memory::EraMemory, error::HttpError};
use crate::link::era::ServerEra;

/// Names the session (MCP 2025-11-25, transports, "Session Management").
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The idle time after which the kernel probes a connection.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Address and time limits of a server.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The URL of its MCP endpoint.
    pub url: Url,
    /// The era that it speaks; `None`: it is asked.
    pub era: Option<ServerEra>,
    /// The time limit for a connection.
    pub connect_timeout: Duration,
    /// The time limit for ending a session.
    pub stop_grace: Duration,
}

/// The endpoint of a server, for any number of links. A connection carries one exchange at a time,
/// and keeps nothing of a session. The era of the server is remembered here, for all links.
pub struct Endpoint {
    http: reqwest::Client,
    pub(super) config: EndpointConfig,
    pub(super) era_memory: EraMemory,
}

/// The headers that name a session at the server; empty before the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionHeaders {
    /// The session id of the server. No client ever sees it.
    pub(super) session: Option<HeaderValue>,
    /// The negotiated protocol version.
    pub(super) version: Option<HeaderValue>,
}

/// Is called when the body of a request goes to the server.
pub(super) type OnSent = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
pub(super) enum UpstreamRequest {
    /// A message.
    Post(Bytes, Option<OnSent>),
    /// A message with the headers that mirror it.
    Mirrored(Bytes, Option<OnSent>, HeaderMap),
    /// The server's own messages, after this event if there is one.
    Listen(Option<String>),
    Delete,
}

/// The body of a request.
struct MessageBody {
    message: Option<Bytes>,
    on_sent: Option<OnSent>,
}

impl Endpoint {
    /// An endpoint. It does not connect yet.
    ///
    /// # Errors
    ///
    /// The TLS library cannot be set up.
    pub fn new(config: EndpointConfig) -> Result<Self, reqwest::Error> {
        // The first provider that is installed stays; it may be another one.
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
            config,
            era_memory: EraMemory::default(),
        })
    }

    /// One exchange, up to the head of the response. Dropping the future, or the response, ends it.
    ///
    /// # Errors
    ///
    /// [`HttpError::Unreachable`].
    pub(super) async fn send(
        &self,
        request: UpstreamRequest,
        headers: &SessionHeaders,
        token: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, HttpError> {
        let method = match request {
            UpstreamRequest::Post(..) | UpstreamRequest::Mirrored(..) => Method::POST,
            UpstreamRequest::Listen(_) => Method::GET,
            UpstreamRequest::Delete => Method::DELETE,
        };
        let mut builder = self.http.request(method, self.config.url.clone());
        for (name, value) in [
            (header::AUTHORIZATION, token),
            (SESSION_ID, headers.session.as_ref()),
            (PROTOCOL_VERSION, headers.version.as_ref()),
        ] {
            if let Some(value) = value {
                builder = builder.header(name, value);
            }
        }
        builder = match request {
            UpstreamRequest::Post(message, on_sent) => with_message(builder, message, on_sent),
            UpstreamRequest::Mirrored(message, on_sent, mirrored) => {
                with_message(builder, message, on_sent).headers(mirrored)
            }
            UpstreamRequest::Listen(last_event_id) => {
                let builder = builder.header(header::ACCEPT, "text/event-stream");
                match last_event_id {
                    Some(id) => builder.header(LAST_EVENT_ID, id),
                    None => builder,
                }
            }
            UpstreamRequest::Delete => builder,
        };
        let response = builder.send().await;
        response.map_err(|error| HttpError::Unreachable(error.without_url()))
    }
}

impl Body for MessageBody {
    type Data = Bytes;
    type Error = Infallible;

    /// The connection asks for the body once it is there, and before it writes anything.
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(on_sent) = self.on_sent.take() {
            on_sent();
        }
        Poll::Ready(self.message.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.message.as_ref().map_or(0, |message| message.len() as u64))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn with_message(builder: reqwest::RequestBuilder, message: Bytes, on_sent: Option<OnSent>) -> reqwest::RequestBuilder {
    builder
        .header(header::ACCEPT, "application/json, text/event-stream")
        .header(header::CONTENT_TYPE, "application/json")
        .body(reqwest::Body::wrap(MessageBody {
            message: Some(message),
            on_sent,
        }))
}

/// Compares the media type of a response, without its parameters.
pub(super) fn has_media_type(response: &reqwest::Response, wanted: &str) -> bool {
    let given = response.headers().get(header::CONTENT_TYPE);
    given.and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(wanted)
    })
}
