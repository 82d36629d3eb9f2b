//! Every answer that the registry gives itself, in one place.
//!
//! Each body is a JSON-RPC error. It carries the id of the request that it answers, byte for byte
//! as the client wrote it: without it clients wait for an answer until their own timeout. An error
//! that answers no request has no id, as MCP 2025-11-25 (transports, "Sending Messages to the
//! Server") requires; never `null`. These texts are for the client; reasons for the operator are
//! logged where they arise.

use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{headers::full_body, jsonrpc::RequestId};
use crate::{config::UnknownStatus, ports::Body};

/// Marks a 401 of the registry: the user's credential is gone for good, and only a new sign-in
/// helps.
///
/// The registry knows of no authorization server, so the answer has no `WWW-Authenticate`. The
/// embedder looks for this in the extensions of the response and adds the header (RFC 6750 section
/// 3), or answers in its own way:
///
/// ```
/// # use session::SignInRequired;
/// # fn finish<B>(mut response: http::Response<B>) -> http::Response<B> {
/// if response.extensions().get::<SignInRequired>().is_some() {
///     let challenge = http::HeaderValue::from_static("Bearer error=\"invalid_token\"");
///     response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
/// }
/// # response
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignInRequired;

/// The reason that the registry answers itself.
#[derive(Debug)]
pub(super) enum ServeError {
    /// The request was not authenticated.
    MissingCaller,
    NotJson,
    /// The body is not one JSON-RPC message.
    Malformed,
    MissingSessionId,
    /// A modern client asks, and only the legacy era is served without a session.
    MethodNotFound,
    /// Not one of the HTTP methods of the MCP endpoint.
    MethodNotAllowed,
    /// The session is another grant's.
    WrongGrant,
    SessionEnded,
    UnknownSession(UnknownStatus),
    /// The user holds as many sessions as one user may.
    UserQuota {
        limit: usize,
        sessions: Vec<SessionSummary>,
        retry_after: Duration,
    },
    /// There are as many sessions as there may be.
    TotalQuota {
        retry_after: Duration,
    },
    ShuttingDown,
    /// No backend can be started now.
    Unavailable,
    SignInRequired,
    /// The backend did not start, or was gone before the session was open.
    BackendNotStarted,
    /// The session's backends keep failing, and the next one is not started yet.
    BackendCrashLoop {
        retry_after: Duration,
    },
    /// Too many streams are parked on a dormant session.
    TooManyStreams,
    Internal,
}

/// One of the sessions that use up a user's quota.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionSummary {
    pub(super) tag: String,
    pub(super) age_seconds: u64,
    /// Absent while an exchange is in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle_seconds: Option<u64>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<QuotaData<'a>>,
}

#[derive(Serialize)]
struct QuotaData<'a> {
    limit: usize,
    sessions: &'a [SessionSummary],
}

/// JSON-RPC 2.0 section 5.1.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INTERNAL_ERROR: i32 = -32603;
/// The range that JSON-RPC leaves to servers.
const SERVER_ERROR: i32 = -32000;
/// The code that the SDKs use for a session that does not exist.
const SESSION_NOT_FOUND: i32 = -32001;

/// `Retry-After` where nothing better is known.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

impl ServeError {
    /// The response. `id` is the id of the request that waits for it, if one does.
    pub(super) fn into_response(self, id: Option<RequestId<'_>>) -> Response<Body> {
        let (code, message) = self.code_and_message();
        let mut data = None;
        if let Self::UserQuota { limit, sessions, .. } = &self {
            data = Some(QuotaData {
                limit: *limit,
                sessions,
            });
        }
        let error = ErrorObject {
            code,
            message: &message,
            data,
        };
        let error = serde_json::to_string(&error).expect("numbers, strings and a list of them always serialize");
        let id = id.map(|id| format!(r#","id":{}"#, id.as_json())).unwrap_or_default();
        let body = format!(r#"{{"jsonrpc":"2.0"{id},"error":{error}}}"#);

        let mut response = Response::new(full_body(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if matches!(self, Self::MethodNotAllowed) {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
        }
        if matches!(self, Self::SignInRequired) {
            response.extensions_mut().insert(SignInRequired);
        }
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotJson | Self::Malformed | Self::MissingSessionId | Self::MethodNotFound => StatusCode::BAD_REQUEST,
            Self::SignInRequired => StatusCode::UNAUTHORIZED,
            Self::WrongGrant => StatusCode::FORBIDDEN,
            Self::SessionEnded => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownSession(status) => status.code(),
            Self::UserQuota { .. } | Self::TooManyStreams => StatusCode::TOO_MANY_REQUESTS,
            Self::MissingCaller | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BackendNotStarted => StatusCode::BAD_GATEWAY,
            Self::TotalQuota { .. } | Self::ShuttingDown | Self::Unavailable | Self::BackendCrashLoop { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    fn code_and_message(&self) -> (i32, Cow<'static, str>) {
        let (code, message) = match self {
            Self::MissingCaller | Self::Internal => (INTERNAL_ERROR, "Internal error"),
            Self::NotJson => (PARSE_ERROR, "Parse error: the body is not JSON"),
            Self::Malformed => (INVALID_REQUEST, "Invalid request: the body is not one JSON-RPC message"),
            Self::MissingSessionId => (INVALID_REQUEST, "Invalid request: Mcp-Session-Id is missing"),
            Self::MethodNotFound => (METHOD_NOT_FOUND, "Method not found"),
            Self::MethodNotAllowed => (SERVER_ERROR, "Method not allowed"),
            Self::WrongGrant => (SERVER_ERROR, "Forbidden: the session belongs to another grant"),
            Self::SessionEnded => (SESSION_NOT_FOUND, "The session has ended: initialize again"),
            Self::UnknownSession(_) => (SESSION_NOT_FOUND, "The session is not known: initialize again"),
            Self::UserQuota { .. } => (
                SERVER_ERROR,
                "Too many sessions of this user: end one, or wait for one to expire",
            ),
            Self::TotalQuota { .. } => (SERVER_ERROR, "Too many sessions: try again later"),
            Self::ShuttingDown => (SERVER_ERROR, "Shutting down: try again later"),
            Self::Unavailable => (SERVER_ERROR, "The MCP server cannot be started now: try again later"),
            Self::SignInRequired => (SERVER_ERROR, "Sign in again"),
            Self::BackendNotStarted => (INTERNAL_ERROR, "The MCP server did not start"),
            Self::BackendCrashLoop { retry_after } => {
                let seconds = whole_seconds(*retry_after);
                let message = format!("The MCP server of this session keeps crashing; next start in {seconds} s");
                return (INTERNAL_ERROR, message.into());
            }
            Self::TooManyStreams => (SERVER_ERROR, "Too many GET streams are open on this session"),
        };
        (code, message.into())
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::UserQuota { retry_after, .. }
            | Self::TotalQuota { retry_after }
            | Self::BackendCrashLoop { retry_after } => Some(*retry_after),
            Self::ShuttingDown | Self::Unavailable | Self::TooManyStreams => Some(DEFAULT_RETRY_AFTER),
            Self::MissingCaller
            | Self::NotJson
            | Self::Malformed
            | Self::MissingSessionId
            | Self::MethodNotFound
            | Self::MethodNotAllowed
            | Self::WrongGrant
            | Self::SessionEnded
            | Self::UnknownSession(_)
            | Self::SignInRequired
            | Self::BackendNotStarted
            | Self::Internal => None,
        }
    }
}

/// RFC 9110 section 10.2.3: `Retry-After` counts whole seconds. Rounded up, and never zero.
fn whole_seconds(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
    }
}
