//! The traits that the HTTP server needs from outside.
//!
//! The HTTP server knows paths, limits and lifetimes. The [`Authority`] authenticates callers, the
//! [`McpService`] serves MCP requests, [`Probe`]s determine readiness, and [`Metrics`] counts.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body_util::combinators::UnsyncBoxBody;

pub use futures_core::future::BoxFuture;

/// An error of a port, or of producing a response body.
pub type PortError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: complete, or a stream of server-sent events.
pub type ResponseBody = UnsyncBoxBody<Bytes, PortError>;

/// The authorization server and the guard of `/mcp`.
pub trait Authority: fmt::Debug + Send + Sync + 'static {
    /// Authenticates a request to `/mcp` and attaches the caller to `parts.extensions` for the
    /// [`McpService`]. Returns the grant of the caller, by which its limits are counted.
    ///
    /// Dropping the future has no side effects.
    ///
    /// # Errors
    ///
    /// A complete response: 401 or 403 with `WWW-Authenticate` (RFC 6750 section 3), or 503 if the
    /// caller cannot be determined now.
    fn authenticate<'a>(
        &'a self,
        parts: &'a mut request::Parts,
    ) -> BoxFuture<'a, Result<GrantKey, Response<ResponseBody>>>;

    /// Serves one request under `/oauth/` or `/.well-known/`, with 404 for an unknown path.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>>;
}

/// The grant that a caller has: requests with the same one share its limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantKey(pub Arc<str>);

/// The answer of an [`McpService`].
#[derive(Debug)]
pub struct McpAnswer {
    /// The response for the client.
    pub response: Response<ResponseBody>,
    /// The span in which the request is logged, which has the fields of its session.
    pub span: Option<tracing::Span>,
}

/// Serves authenticated MCP requests.
pub trait McpService: fmt::Debug + Send + Sync + 'static {
    /// Serves one request. The [`Authority`] has put the caller into its extensions.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, McpAnswer>;

    /// Stops all sessions: no request begins after the call, and open streams end. Returns once no
    /// backend is left. Idempotent.
    fn stop(&self) -> BoxFuture<'_, ()>;
}

/// A component that must work for the broker to be ready.
pub trait Probe: fmt::Debug + Send + Sync + 'static {
    /// The name in `/readyz`.
    fn name(&self) -> &'static str;

    /// Checks that the component works.
    ///
    /// # Errors
    ///
    /// The reason, for the operator's log; clients see only that the probe failed.
    fn check(&self) -> BoxFuture<'_, Result<(), PortError>>;
}

/// The metrics of the program.
pub trait Metrics: fmt::Debug + Send + Sync + 'static {
    /// All metrics, in the text format of OpenMetrics 1.0. Called on the task of the request, so it
    /// must not block.
    ///
    /// # Errors
    ///
    /// The reason, for the operator's log.
    fn text(&self) -> Result<String, PortError>;

    /// Counts a request of the HTTP server. Called from any thread; must not block.
    fn request_completed(&self, request: CompletedRequest);
}

impl From<Response<ResponseBody>> for McpAnswer {
    fn from(response: Response<ResponseBody>) -> Self {
        Self { response, span: None }
    }
}

/// A request whose response has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedRequest {
    /// The name of its route: one of a fixed set, never chosen by a client.
    pub route: &'static str,
    /// The status of the response.
    pub status: StatusCode,
    /// The time from the head of the request to the head of the response.
    pub duration: Duration,
}
