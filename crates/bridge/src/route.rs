//! Where a request without a session id belongs.
//!
//! Clients of 2026-07-28 have no session ids, and some earlier ones lose theirs. A request that
//! names its version in `_meta` is of 2026-07-28; so is one whose header does, but for `initialize`
//! (MCP 2026-07-28, "Versioning").

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};

use crate::{
    Body,
    config::Config,
    exchange::response,
    jsonrpc::{Envelope, Id, MessageError, MessageKind},
    machine::{LATEST, Snapshot},
    modern::{self, ModernError, ModernRequest, request, state::RequestState},
    parsed::Parsed,
};

/// The session of a request.
#[derive(Debug)]
pub enum Destination {
    /// It opens a new session.
    Open,
    /// It belongs to the session of this name that has no id, of the caller's grant. If there is
    /// none, its conversation is made from the snapshot.
    Implicit {
        /// Names the capabilities of the client.
        name: [u8; 16],
        /// The state of the conversation before its first server.
        snapshot: Snapshot,
    },
    /// It belongs to the session that the caller's grant has opened last.
    LastInitialize {
        /// The state of a conversation for a grant that has never opened one.
        default: Snapshot,
        /// It is worth a session: a request, not a notification.
        opens: bool,
    },
    /// It belongs to the session with this short name, of the caller's grant.
    Tagged {
        /// The short name.
        tag: Arc<str>,
        /// Where it belongs if there is no such session.
        otherwise: Box<Self>,
    },
    /// It belongs nowhere: the answer.
    Reply(Response<Body>),
}

/// Tells where a request without a session id belongs, and leaves what it has parsed in the
/// extensions of the request. `principal` is who may answer questions.
pub fn route(request: &mut Request<Bytes>, principal: &str, config: &Config) -> Destination {
    let is_modern = has_modern_version(request.headers());
    if request.method() == Method::GET && !is_modern {
        if config.sessionless_legacy {
            return last_initialize(false);
        }
        return Destination::Reply(response::missing_session_id(None));
    }
    if request.method() != Method::POST {
        return Destination::Reply(response::only_post());
    }
    let message = match Envelope::parse(request.body()) {
        Ok(message) => message,
        Err(MessageError::NotJsonRpc(id)) => {
            let error = MessageError::NotJsonRpc(None).into();
            return Destination::Reply(response::rejected(&error, id.as_ref()));
        }
        Err(error) => return Destination::Reply(response::rejected(&error.into(), None)),
    };
    match message.kind().clone() {
        MessageKind::Request { id, method } => {
            let named = request::meta_version(&message).is_some();
            if named || (is_modern && &*method != "initialize") {
                return modern_request(request, &message, &id, &method, principal, config);
            }
            if &*method == "initialize" {
                return Destination::Open;
            }
            legacy(request, message, Some(&id), config, || last_initialize(true))
        }
        // No notification of clients exists in this era.
        MessageKind::Notification { .. } if is_modern => Destination::Reply(response::accepted()),
        MessageKind::Notification { .. } => legacy(request, message, None, config, || last_initialize(false)),
        MessageKind::Response { .. } if is_modern => {
            let error = ModernError::invalid_request("clients of this version send no responses");
            Destination::Reply(response::modern_rejected(&error, None))
        }
        MessageKind::Response { id, .. } => {
            // The ids of questions begin with the short name of their session.
            let tag = id.as_ref().and_then(Id::text).and_then(|text| text.split_once('-'));
            let tag = tag.map(|(tag, _)| Arc::from(tag));
            legacy(request, message, None, config, || match tag {
                Some(tag) => Destination::Tagged {
                    tag,
                    otherwise: Box::new(last_initialize(false)),
                },
                None => last_initialize(false),
            })
        }
    }
}

/// True if a session id means nothing on a request with these headers.
#[must_use]
pub fn ignores_session_id(headers: &HeaderMap) -> bool {
    has_modern_version(headers)
}

fn has_modern_version(headers: &HeaderMap) -> bool {
    let version = headers
        .get("mcp-protocol-version")
        .and_then(|value| value.to_str().ok());
    version.is_some_and(|version| modern::is_modern(version.trim()))
}

fn legacy(
    request: &mut Request<Bytes>,
    message: Envelope,
    id: Option<&Id>,
    config: &Config,
    route: impl FnOnce() -> Destination,
) -> Destination {
    if !config.sessionless_legacy {
        return Destination::Reply(response::missing_session_id(id));
    }
    request.extensions_mut().insert(Parsed::Legacy(Box::new(message)));
    route()
}

fn modern_request(
    request: &mut Request<Bytes>,
    message: &Envelope,
    id: &Id,
    method: &str,
    principal: &str,
    config: &Config,
) -> Destination {
    let checked = match ModernRequest::check(request.headers(), message, id, method) {
        Ok(checked) => checked,
        Err(error) => return Destination::Reply(response::modern_rejected(&error, Some(id))),
    };
    let params = checked.capabilities.initialize_params(checked.client_info.as_deref());
    let Some(snapshot) = Snapshot::without_handshake(&params, LATEST, true) else {
        let error = ModernError::invalid_params("the capabilities are not JSON");
        return Destination::Reply(response::modern_rejected(&error, Some(id)));
    };
    let implicit = Destination::Implicit {
        name: checked.capabilities.fingerprint(),
        snapshot,
    };
    let about_task = checked.method.starts_with("tasks/");
    let task = checked
        .name
        .as_deref()
        .filter(|_| about_task)
        .and_then(|id| id.split_once('-'));
    let task = task.map(|(tag, _)| Arc::from(tag));
    let state = checked.request_state.as_ref().zip(config.state_sealer.as_ref());
    let state = state.and_then(|(state, sealer)| RequestState::open(state, &**sealer, principal));
    request.extensions_mut().insert(Parsed::Modern(Box::new(checked)));
    // A retry belongs to the session that has asked, whatever it declares now, and so does a
    // request about a task.
    match state.map(|state| state.tag.into()).or(task) {
        Some(tag) => Destination::Tagged {
            tag,
            otherwise: Box::new(implicit),
        },
        None => implicit,
    }
}

/// A client that has made no handshake declares nothing.
fn last_initialize(opens: bool) -> Destination {
    let params = r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"unknown","version":"0"}}"#;
    match Snapshot::without_handshake(params, LATEST, false) {
        Some(default) => Destination::LastInitialize { default, opens },
        None => Destination::Reply(response::missing_session_id(None)),
    }
}
