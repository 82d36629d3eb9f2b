//! The errors of the revision with their HTTP status (MCP 2026-07-28, basic, "Error Codes").

use http::StatusCode;

use super::VERSION;
use crate::{
    error::RejectReason,
    jsonrpc::{self, INVALID_PARAMS, INVALID_REQUEST, json},
};

/// A header differs from the body, is missing, or cannot be read.
pub(crate) const HEADER_MISMATCH: i32 = -32020;
/// The client lacks a capability that the request needs.
pub(crate) const MISSING_CAPABILITY: i32 = -32021;
/// The version of the request is not supported.
pub(crate) const UNSUPPORTED_VERSION: i32 = -32022;
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
pub(crate) const INTERNAL: i32 = -32603;

/// Why a modern request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModernError {
    pub(crate) status: StatusCode,
    pub(crate) code: i32,
    pub(crate) message: String,
    /// JSON text.
    pub(crate) data: Option<String>,
}

impl ModernError {
    fn bad_request(code: i32, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(crate) fn invalid_params(message: impl Into<String>) -> Self {
        Self::bad_request(INVALID_PARAMS, message)
    }

    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::bad_request(INVALID_REQUEST, message)
    }

    pub(crate) fn header(message: impl Into<String>) -> Self {
        Self::bad_request(HEADER_MISMATCH, message)
    }

    pub(crate) fn version(requested: &str) -> Self {
        let requested = json::quote(requested);
        Self {
            data: Some(format!(r#"{{"supported":["{VERSION}"],"requested":{requested}}}"#)),
            ..Self::bad_request(UNSUPPORTED_VERSION, "unsupported protocol version")
        }
    }

    pub(crate) fn method_not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::bad_request(METHOD_NOT_FOUND, "method not found")
        }
    }

    /// What a handler says about the parameters of a request.
    pub(crate) fn unknown_task() -> Self {
        Self {
            status: StatusCode::OK,
            ..Self::invalid_params("there is no such task")
        }
    }

    /// A `requestState` that is not accepted. The reason is in `data` where it is no secret.
    pub(crate) fn request_state(reason: Option<&str>) -> Self {
        Self {
            data: reason.map(|reason| format!(r#"{{"reason":"{reason}"}}"#)),
            ..Self::invalid_params("the requestState is not valid for this request")
        }
    }

    pub(crate) fn missing_capability(missing: &serde_json::Value) -> Self {
        Self {
            data: Some(format!(r#"{{"requiredCapabilities":{missing}}}"#)),
            ..Self::bad_request(
                MISSING_CAPABILITY,
                "the request needs a capability that the client has not declared",
            )
        }
    }

    pub(crate) fn missing_tasks() -> Self {
        Self::missing_capability(&serde_json::json!({ "extensions": { super::TASKS_EXTENSION: {} } }))
    }

    /// The same answer in this era. Codes from -32000 to -32019 have no meaning here.
    pub(crate) fn rejected(reason: &RejectReason) -> Self {
        let status = if *reason == RejectReason::TooManyRequests {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Self {
            status,
            ..Self::bad_request(INTERNAL, reason.to_string())
        }
    }

    /// The error as a response with this id (JSON text).
    pub(crate) fn response(&self, id: Option<&str>) -> bytes::Bytes {
        jsonrpc::error_with(id, self.code, &self.message, self.data.as_deref())
    }
}

/// The status of a response that a server has made an error with this code for.
pub(crate) fn status(code: i64) -> StatusCode {
    match i32::try_from(code) {
        Ok(METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Ok(MISSING_CAPABILITY) => StatusCode::BAD_REQUEST,
        _other => StatusCode::OK,
    }
}
