//! Every answer that the registry gives itself, in one place.
//!
//! Each body is a JSON-RPC error. It carries the id of the request that it answers, byte for byte as the client wrote
//! it: without it clients wait for an answer until their own timeout. Where there is no request to answer the id is
//! left out, as MCP 2025-11-25 (transports, "Sending Messages to the Server") has it, and never `null`.
//! What is said here is for the client; reasons for the operator are logged where they arise.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::{config::UnknownStatus, ports::Body, shallow::Id};

/// Marks a 401 of the registry: the user's credential is gone for good, and only a new sign-in helps.
///
/// The registry knows of no authorization server, so the answer has no `WWW-Authenticate`. Whoever embeds it looks for
/// this in the extensions of the response and adds the header (RFC 6750 section 3), or answers in its own way:
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

/// Why the registry answers itself.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody has said who asks.
    NoCaller,
    /// The body is not JSON.
    NotJson,
    /// The body is not one JSON-RPC message.
    Malformed,
    /// There is no session id where one is needed.
    NoSessionId,
    /// A modern client asks, and only the legacy era is served without a session.
    DiscoverNotKnown,
    /// Not one of the methods of the MCP endpoint.
    MethodNotAllowed,
    /// The session is another grant's.
    OtherGrant,
    /// The session has ended.
    Ended,
    /// The id is not known.
    Unknown(UnknownStatus),
    /// The user holds as many sessions as one user may.
    UserCap {
        limit: usize,
        sessions: Vec<Holder>,
        retry_after: Duration,
    },
    /// There are as many sessions as there may be.
    TotalCap { retry_after: Duration },
    /// The registry stops.
    Stopping,
    /// No backend can be had now.
    Unavailable,
    /// The user has to sign in again.
    SignIn,
    /// The backend did not start, or was gone before the session was open.
    NotStarted,
    /// The session's backends keep ending, and the next one is not started yet.
    KeepsEnding { retry_after: Duration },
    /// Too many streams listen on a session that sleeps.
    TooManyListeners,
    /// The registry itself is at fault.
    Internal,
}

/// One of the sessions that fill a user's cap.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    pub(crate) tag: String,
    pub(crate) age_seconds: u64,
    /// Absent while an exchange is in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_seconds: Option<u64>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<CapData<'a>>,
}

#[derive(Serialize)]
struct CapData<'a> {
    limit: usize,
    sessions: &'a [Holder],
}

/// JSON-RPC 2.0 section 5.1.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INTERNAL_ERROR: i32 = -32603;
/// The range that JSON-RPC leaves to servers.
const SERVER_ERROR: i32 = -32000;
/// What the SDKs use for a session that is not there.
const SESSION_NOT_FOUND: i32 = -32001;

/// When to try again where nothing better is known.
const SOON: Duration = Duration::from_secs(5);

impl Refusal {
    /// The answer. `id` is the id of the request that waits for it, if one does.
    pub(crate) fn answer(self, id: Option<Id<'_>>) -> Response<Body> {
        let (status, code, message) = self.parts();
        let data = if let Self::UserCap { limit, sessions, .. } = &self {
            Some(CapData {
                limit: *limit,
                sessions,
            })
        } else {
            None
        };
        let error = serde_json::to_string(&ErrorObject { code, message, data })
            .expect("numbers, strings and a list of them always serialize");
        let id = id.map(|id| format!(r#","id":{}"#, id.as_json())).unwrap_or_default();
        let body = format!(r#"{{"jsonrpc":"2.0"{id},"error":{error}}}"#);

        let mut response = Response::new(whole(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if matches!(self, Self::MethodNotAllowed) {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
        }
        if matches!(self, Self::SignIn) {
            response.extensions_mut().insert(SignInRequired);
        }
        response
    }

    fn parts(&self) -> (StatusCode, i32, &'static str) {
        match self {
            Self::NoCaller | Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "Internal error"),
            Self::NotJson => (
                StatusCode::BAD_REQUEST,
                PARSE_ERROR,
                "Parse error: the body is not JSON",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                INVALID_REQUEST,
                "Invalid request: the body is not one JSON-RPC message",
            ),
            Self::NoSessionId => (
                StatusCode::BAD_REQUEST,
                INVALID_REQUEST,
                "Invalid request: Mcp-Session-Id is missing",
            ),
            Self::DiscoverNotKnown => (StatusCode::BAD_REQUEST, METHOD_NOT_FOUND, "Method not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, SERVER_ERROR, "Method not allowed"),
            Self::OtherGrant => (
                StatusCode::FORBIDDEN,
                SERVER_ERROR,
                "Forbidden: the session belongs to another grant",
            ),
            Self::Ended => (
                StatusCode::NOT_FOUND,
                SESSION_NOT_FOUND,
                "The session has ended: initialize again",
            ),
            Self::Unknown(status) => (
                status.code(),
                SESSION_NOT_FOUND,
                "The session is not known: initialize again",
            ),
            Self::UserCap { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                SERVER_ERROR,
                "You have too many sessions: end one or wait until one has been idle for long enough",
            ),
            Self::TotalCap { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER_ERROR,
                "There are too many sessions: try again later",
            ),
            Self::Stopping => (
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER_ERROR,
                "The service stops: try again later",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER_ERROR,
                "The server cannot be started now: try again later",
            ),
            Self::SignIn => (StatusCode::UNAUTHORIZED, SERVER_ERROR, "Sign in again"),
            Self::NotStarted => (StatusCode::BAD_GATEWAY, INTERNAL_ERROR, "The server did not start"),
            Self::KeepsEnding { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "The server of this session keeps ending: it is not started again for a while",
            ),
            Self::TooManyListeners => (
                StatusCode::TOO_MANY_REQUESTS,
                SERVER_ERROR,
                "Too many streams listen on this session",
            ),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::UserCap { retry_after, .. } | Self::TotalCap { retry_after } | Self::KeepsEnding { retry_after } => {
                Some(*retry_after)
            }
            Self::Stopping | Self::Unavailable | Self::TooManyListeners => Some(SOON),
            Self::NoCaller
            | Self::NotJson
            | Self::Malformed
            | Self::NoSessionId
            | Self::DiscoverNotKnown
            | Self::MethodNotAllowed
            | Self::OtherGrant
            | Self::Ended
            | Self::Unknown(_)
            | Self::SignIn
            | Self::NotStarted
            | Self::Internal => None,
        }
    }
}

/// A body that is all there.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// RFC 9110 section 10.2.3: `Retry-After` counts whole seconds. Rounded up, and never "at once".
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
