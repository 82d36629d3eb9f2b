//! Every answer with which the face refuses a request, in one place.
//!
//! At `/mcp` the body is a JSON-RPC error without an id: the request's own body has not been read. Elsewhere it is a line
//! of plain text. What is said here is for the client; what the operator needs is in [`HttpError::reason`].

use http::{HeaderValue, Response, StatusCode, header};

use crate::{ports::ResponseBody, response};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpError {
    /// No Host, more than one, or one that is no host.
    BadHost,
    /// The host is not one of the broker's.
    HostNotAllowed,
    /// The origin is not one of the allowed ones.
    OriginNotAllowed,
    /// Not a method of `/mcp`.
    McpMethod,
    /// Not a method of a page.
    PageMethod,
    /// The client accepts nothing that could be the answer to a POST.
    PostNotAcceptable,
    /// The client does not accept a stream.
    GetNotAcceptable,
    /// The body is not JSON, or is encoded.
    UnsupportedMediaType,
    /// The body is larger than allowed.
    TooLarge,
    /// The body took too long.
    TooSlow,
    /// The body broke off.
    BrokenBody,
    /// The metrics are for whoever has the token.
    MetricsToken,
    /// The metrics cannot be written down.
    MetricsFailed,
    /// There is nothing here.
    NotFound,
    /// The exchange panicked.
    Panicked,
}

/// In which form the client reads an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// A JSON-RPC error.
    JsonRpc,
    /// A line of text.
    Text,
}

/// JSON-RPC 2.0 section 5.1: the range that is left to servers.
const SERVER_ERROR: i32 = -32000;
/// JSON-RPC 2.0 section 5.1.
const INTERNAL_ERROR: i32 = -32603;

impl HttpError {
    /// The answer.
    pub(crate) fn answer(self, form: ErrorFormat) -> Response<ResponseBody> {
        let (status, text) = self.said();
        let mut response = match form {
            ErrorFormat::Text => response::text(status, format!("{text}\n")),
            ErrorFormat::JsonRpc => {
                let code = if status == StatusCode::INTERNAL_SERVER_ERROR {
                    INTERNAL_ERROR
                } else {
                    SERVER_ERROR
                };
                let error = serde_json::json!({ "code": code, "message": text });
                response::json(status, &serde_json::json!({ "jsonrpc": "2.0", "error": error }))
            }
        };
        let extra = match self {
            Self::McpMethod => Some((header::ALLOW, "GET, POST, DELETE")),
            Self::PageMethod => Some((header::ALLOW, "GET, HEAD")),
            // RFC 6750 section 3.
            Self::MetricsToken => Some((header::WWW_AUTHENTICATE, "Bearer")),
            // What is left of the body would be taken for the next request.
            Self::TooLarge | Self::TooSlow | Self::BrokenBody => Some((header::CONNECTION, "close")),
            Self::BadHost
            | Self::HostNotAllowed
            | Self::OriginNotAllowed
            | Self::PostNotAcceptable
            | Self::GetNotAcceptable
            | Self::UnsupportedMediaType
            | Self::MetricsFailed
            | Self::NotFound
            | Self::Panicked => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn said(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadHost => (StatusCode::BAD_REQUEST, "Bad request: one Host is needed"),
            Self::HostNotAllowed => (StatusCode::FORBIDDEN, "Forbidden: this host is not served here"),
            Self::OriginNotAllowed => (StatusCode::FORBIDDEN, "Forbidden: this origin is not allowed"),
            Self::McpMethod | Self::PageMethod => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::PostNotAcceptable => (
                StatusCode::NOT_ACCEPTABLE,
                "Not acceptable: accept both application/json and text/event-stream",
            ),
            Self::GetNotAcceptable => (StatusCode::NOT_ACCEPTABLE, "Not acceptable: accept text/event-stream"),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type: send application/json without an encoding",
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "The body took too long"),
            Self::BrokenBody => (StatusCode::BAD_REQUEST, "The body broke off"),
            Self::MetricsToken => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::MetricsFailed | Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }

    /// What the operator's log says where the status does not.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BadHost => "no Host, several, or none that can be read",
            Self::HostNotAllowed => "Host is neither that of public_url nor an allowed one",
            Self::OriginNotAllowed => "Origin is neither that of public_url nor an allowed one",
            Self::McpMethod | Self::PageMethod => "method",
            Self::PostNotAcceptable | Self::GetNotAcceptable => "Accept",
            Self::UnsupportedMediaType => "Content-Type or Content-Encoding",
            Self::TooLarge => "body over the limit",
            Self::TooSlow => "body over its time",
            Self::BrokenBody => "body broke off",
            Self::MetricsToken => "no token for the metrics, or a wrong one",
            Self::MetricsFailed => "the metrics cannot be written down",
            Self::NotFound => "no such path",
            Self::Panicked => "the exchange panicked",
        }
    }
}
