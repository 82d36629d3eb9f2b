//! Every answer that the registry gives itself, in one place.
//!
//! Each body is a JSON-RPC error. It carries the id of the request that it answers, byte for byte
//! as the client wrote it: without it clients wait for an answer until their own timeout. An error
//! that answers no request has no id, as MCP 2025-11-25 (transports, "Sending Messages to the
//! Server") requires; never `null`. These texts are for the client; reasons for the operator are
//! logged where they arise.

use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::{
    config::UnknownStatus,
    exchange::json_rpc_error,
    ports::{
        Body,
        SessionError::{self, Aborted, BackingOff, Ended, NotStarted, ShuttingDown, SignInRequired, Unavailable},
        whole_seconds,
    },
};

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
    /// A GET or DELETE without a session.
    NeedsSession,
    /// The session is another grant's.
    WrongGrant,
    UnknownSession(UnknownStatus),
    /// The user holds as many sessions as one user may. `data` tells the client which ones.
    UserQuota {
        data: serde_json::Value,
        retry_after: Duration,
    },
    /// There are as many sessions as there may be.
    TotalQuota {
        retry_after: Duration,
    },
    Session(SessionError),
    Internal,
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

impl From<SessionError> for ServeError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl ServeError {
    /// The response. `id` is the id of the request that waits for it, if one does, as JSON.
    pub(super) fn into_response(self, id: Option<&str>) -> Response<Body> {
        let status = self.status();
        let (code, message) = self.code_and_message();
        let mut error = json!({ "code": code, "message": message });
        if let Self::UserQuota { data, .. } = &self {
            error["data"] = data.clone();
        }
        let mut response = json_rpc_error(status, &error, id);
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after(status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if let Some(methods) = self.allow() {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotJson | Self::Malformed | Self::MissingSessionId | Self::MethodNotFound => StatusCode::BAD_REQUEST,
            Self::Session(SignInRequired) => StatusCode::UNAUTHORIZED,
            Self::WrongGrant => StatusCode::FORBIDDEN,
            Self::Session(Ended) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed | Self::NeedsSession => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownSession(status) => status.code(),
            Self::UserQuota { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::MissingCaller | Self::Internal | Self::Session(Aborted) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Session(NotStarted { .. }) => StatusCode::BAD_GATEWAY,
            Self::TotalQuota { .. } | Self::Session(ShuttingDown | Unavailable | BackingOff(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The methods for `Allow` of a 405 (RFC 9110 section 15.5.6).
    fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed => Some("GET, POST, DELETE"),
            Self::NeedsSession => Some("POST"),
            Self::MissingCaller
            | Self::NotJson
            | Self::Malformed
            | Self::MissingSessionId
            | Self::MethodNotFound
            | Self::WrongGrant
            | Self::UnknownSession(_)
            | Self::UserQuota { .. }
            | Self::TotalQuota { .. }
            | Self::Session(_)
            | Self::Internal => None,
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
            Self::NeedsSession => (SERVER_ERROR, "Method not allowed without a session"),
            Self::WrongGrant => (SERVER_ERROR, "Forbidden: the session belongs to another grant"),
            Self::UnknownSession(_) => (SESSION_NOT_FOUND, "The session is not known: initialize again"),
            Self::UserQuota { .. } => (
                SERVER_ERROR,
                "Too many sessions of this user: end one, or wait for one to expire",
            ),
            Self::TotalQuota { .. } => (SERVER_ERROR, "Too many sessions: try again later"),
            Self::Session(error) => {
                let code = match error {
                    Ended => SESSION_NOT_FOUND,
                    ShuttingDown | SignInRequired | Unavailable => SERVER_ERROR,
                    NotStarted { .. } | BackingOff(_) | Aborted => INTERNAL_ERROR,
                };
                return (code, error.to_string().into());
            }
        };
        (code, message.into())
    }

    /// Every 429, 502 and 503 says when to try again.
    fn retry_after(&self, status: StatusCode) -> Option<Duration> {
        let known = match self {
            Self::UserQuota { retry_after, .. } | Self::TotalQuota { retry_after } => Some(*retry_after),
            Self::Session(error) => error.retry_after(),
            Self::MissingCaller
            | Self::NotJson
            | Self::Malformed
            | Self::MissingSessionId
            | Self::MethodNotFound
            | Self::MethodNotAllowed
            | Self::NeedsSession
            | Self::WrongGrant
            | Self::UnknownSession(_)
            | Self::Internal => None,
        };
        known.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(DEFAULT_RETRY_AFTER))
    }
}
