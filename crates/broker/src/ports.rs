//! What the HTTP face needs from the outside, as traits that it owns.
//!
//! The face knows paths, limits and lifetimes. Who a request comes from is the [`Authority`]'s business, what an MCP
//! exchange means is the [`McpService`]'s, whether the broker is fit to serve is told by [`Probe`]s, and what has been counted
//! by [`Metrics`].

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body_util::combinators::UnsyncBoxBody;

/// An owned future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What may go wrong while a response body is produced.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The authorization server and the guard of `/mcp`.
pub trait Authority: fmt::Debug + Send + Sync + 'static {
    /// Finds out who sends a request to `/mcp` and attaches the caller to `parts.extensions` for the [`McpService`].
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    ///
    /// A ready answer: 401 or 403 with `WWW-Authenticate` (RFC 6750 section 3), or 503 when the question cannot be
    /// answered now.
    fn authenticate<'a>(&'a self, parts: &'a mut request::Parts) -> BoxFuture<'a, Result<(), Response<ResponseBody>>>;

    /// Serves one request under `/oauth/` or `/.well-known/`, with 404 for a path that is not its own.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>>;
}

/// The span in which the face logs an exchange, in the extensions of its response: so the line about the answer carries the
/// fields of whatever the exchange belongs to.
#[derive(Clone, Debug)]
pub struct LogSpan(pub tracing::Span);

/// Serves authenticated MCP exchanges.
pub trait McpService: fmt::Debug + Send + Sync + 'static {
    /// Serves one exchange. The caller is in the extensions of the request, put there by the [`Authority`].
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>>;

    /// Stops all sessions: no exchange is begun after the call, and open streams end. Returns when no backend is left.
    /// Idempotent.
    fn drain(&self) -> BoxFuture<'_, ()>;
}

/// One thing that has to work for the broker to be healthy.
pub trait Probe: fmt::Debug + Send + Sync + 'static {
    /// The name under which `/healthz` shows it.
    fn name(&self) -> &'static str;

    /// Whether it works now.
    ///
    /// # Errors
    ///
    /// The reason, for the operator's log; `/healthz` shows only that the probe failed.
    fn check(&self) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// What is counted, for `/metrics`.
pub trait Metrics: fmt::Debug + Send + Sync + 'static {
    /// All that has been counted, in the text format of OpenMetrics 1.0. Asked on the task of the exchange: it must return at
    /// once.
    ///
    /// # Errors
    ///
    /// The reason, for the operator's log.
    fn text(&self) -> Result<String, BoxError>;

    /// Counts an exchange of the face itself. Calls come from any thread and must return at once.
    fn request_completed(&self, answered: CompletedRequest);
}

/// An exchange whose answer has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedRequest {
    /// Where it led: one of a handful of names, none of them chosen by a client.
    pub route: &'static str,
    /// The status of the answer.
    pub status: StatusCode,
    /// The time from the head of the request to the head of the answer.
    pub duration: Duration,
}
