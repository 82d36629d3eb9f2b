//! Every error response of the HTTP server, in one place.
//!
//! At `/mcp` the body is a JSON-RPC error without an id, since the request's body has not been
//! read. Elsewhere it is a line of plain text. The message is for the client; [`HttpError::reason`]
//! is for the operator's log.

use http::{HeaderValue, Response, StatusCode, header};

use crate::{ports::ResponseBody, response, route::Route};

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpError {
    /// No Host, more than one, or an invalid one.
    BadHost,
    HostNotAllowed,
    OriginNotAllowed,
    /// With the methods that are allowed.
    MethodNotAllowed(&'static str),
    /// The client accepts no possible response to a POST.
    PostNotAcceptable,
    /// The client does not accept an event stream.
    GetNotAcceptable,
    /// The body is not JSON, or is encoded.
    UnsupportedMediaType,
    BodyTooLarge,
    BodyTimeout,
    /// All bodies together are too large for now.
    BodyBudgetExceeded,
    /// The body ended early.
    BodyIncomplete,
    /// The limit of connections is reached, and all of them have requests.
    TooManyConnections,
    /// The grant has as many exchanges as it may have.
    TooManyExchanges,
    /// All grants together have as many exchanges as they may have.
    Overloaded,
    /// The token for the metrics is missing or wrong.
    MetricsToken,
    /// The metrics cannot be encoded.
    MetricsFailed,
    NotFound,
    /// The request handler panicked.
    Panicked,
}

/// JSON-RPC 2.0 section 5.1: from the range that is reserved for servers.
const SERVER_ERROR: i32 = -32000;
/// JSON-RPC 2.0 section 5.1.
const INTERNAL_ERROR: i32 = -32603;

impl HttpError {
    pub(crate) fn response(self, route: Route) -> Response<ResponseBody> {
        let (status, message) = self.status_and_message();
        let mut response = if route == Route::Mcp {
            let internal = status == StatusCode::INTERNAL_SERVER_ERROR;
            let code = if internal { INTERNAL_ERROR } else { SERVER_ERROR };
            let error = serde_json::json!({ "code": code, "message": message });
            response::json(status, &serde_json::json!({ "jsonrpc": "2.0", "error": error }))
        } else {
            response::text(status, format!("{message}\n"))
        };
        let extra = match self {
            Self::MethodNotAllowed(allowed) => Some((header::ALLOW, allowed)),
            // RFC 6750 section 3.
            Self::MetricsToken => Some((header::WWW_AUTHENTICATE, "Bearer")),
            // The rest of the body would be parsed as the next request.
            Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BodyIncomplete
            | Self::BodyBudgetExceeded
            | Self::TooManyConnections => Some((header::CONNECTION, "close")),
            Self::BadHost
            | Self::HostNotAllowed
            | Self::OriginNotAllowed
            | Self::PostNotAcceptable
            | Self::GetNotAcceptable
            | Self::UnsupportedMediaType
            | Self::TooManyExchanges
            | Self::Overloaded
            | Self::MetricsFailed
            | Self::NotFound
            | Self::Panicked => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        if let Some(seconds) = self.retry_after() {
            let value = HeaderValue::from_static(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }

    /// Seconds after which the client may try again (RFC 9110 section 10.2.3).
    fn retry_after(self) -> Option<&'static str> {
        let passes = matches!(
            self,
            Self::BodyBudgetExceeded | Self::TooManyConnections | Self::TooManyExchanges | Self::Overloaded
        );
        passes.then_some("1")
    }

    fn status_and_message(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadHost => (StatusCode::BAD_REQUEST, "Bad request: send exactly one valid Host"),
            Self::HostNotAllowed => (StatusCode::FORBIDDEN, "Forbidden: this host is not served here"),
            Self::OriginNotAllowed => (StatusCode::FORBIDDEN, "Forbidden: this origin is not allowed"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::PostNotAcceptable => (
                StatusCode::NOT_ACCEPTABLE,
                "Not acceptable: accept both application/json and text/event-stream",
            ),
            Self::GetNotAcceptable => (StatusCode::NOT_ACCEPTABLE, "Not acceptable: accept text/event-stream"),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type: send application/json without an encoding",
            ),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::BodyBudgetExceeded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many request bodies are in progress: try again",
            ),
            Self::BodyIncomplete => (StatusCode::BAD_REQUEST, "The body is incomplete"),
            Self::TooManyConnections => (StatusCode::SERVICE_UNAVAILABLE, "Too many connections: try again"),
            Self::TooManyExchanges => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests of this sign-in are in progress: wait for an answer or end a stream",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests in progress: try again",
            ),
            Self::MetricsToken => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::MetricsFailed | Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }

    /// The reason for the operator's log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BadHost => "Host is missing, repeated or invalid",
            Self::HostNotAllowed => "Host is neither that of public_url nor an allowed one",
            Self::OriginNotAllowed => "Origin is neither that of public_url nor an allowed one",
            Self::MethodNotAllowed(_) => "method is not allowed",
            Self::PostNotAcceptable | Self::GetNotAcceptable => "Accept lacks a required media type",
            Self::UnsupportedMediaType => "Content-Type or Content-Encoding is not supported",
            Self::BodyTooLarge => "body exceeds its size limit",
            Self::BodyTimeout => "body exceeds its timeout",
            Self::BodyBudgetExceeded => "bodies in progress exceed their budget",
            Self::BodyIncomplete => "body ended early",
            Self::TooManyConnections => "limit of connections is reached, and all have requests",
            Self::TooManyExchanges => "limit of exchanges of one grant is reached",
            Self::Overloaded => "limit of all exchanges is reached",
            Self::MetricsToken => "token for the metrics is missing or wrong",
            Self::MetricsFailed => "metrics cannot be encoded",
            Self::NotFound => "no such path",
            Self::Panicked => "request handler panicked",
        }
    }
}
