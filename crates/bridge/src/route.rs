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
    machine::Snapshot,
    modern::{self, ClientCapabilities, ModernError, ModernRequest, request, state::RequestState},
    parsed::Parsed,
    versions::LATEST,
};

/// The session of a request.
#[derive(Debug)]
pub enum Destination {
    /// It opens a new session.
    Open,
    /// It belongs to the session of this name that has no id, of the caller's grant. If there is
    /// none, its conversation is made from [`initial_snapshot`].
    Implicit {
        /// Names the capabilities of the client.
        name: [u8; 16],
    },
    /// It belongs to the session that the caller's grant has opened last. If the grant has never
    /// opened one, its conversation is made from [`initial_snapshot`].
    LastInitialize {
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
            return Destination::LastInitialize { opens: false };
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
            if (is_modern && &*method != "initialize") || request::meta_version(&message).is_some() {
                return modern_request(request, &message, &id, &method, principal, config);
            }
            if &*method == "initialize" {
                return Destination::Open;
            }
            legacy(
                request,
                message,
                Some(&id),
                config,
                Destination::LastInitialize { opens: true },
            )
        }
        // No notification of clients exists in this era.
        MessageKind::Notification { .. } if is_modern => Destination::Reply(response::accepted()),
        MessageKind::Notification { .. } => legacy(
            request,
            message,
            None,
            config,
            Destination::LastInitialize { opens: false },
        ),
        MessageKind::Response { .. } if is_modern => {
            let error = ModernError::invalid_request("clients of this version send no responses");
            Destination::Reply(response::modern_rejected(&error, None))
        }
        MessageKind::Response { id, .. } => {
            // The ids of questions begin with the short name of their session.
            let tag = id.as_ref().and_then(Id::text).and_then(|text| text.split_once('-'));
            let otherwise = Destination::LastInitialize { opens: false };
            let destination = tagged(tag.map(|(tag, _)| tag), otherwise);
            legacy(request, message, None, config, destination)
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
    destination: Destination,
) -> Destination {
    if !config.sessionless_legacy {
        return Destination::Reply(response::missing_session_id(id));
    }
    request.extensions_mut().insert(Parsed::Legacy(Box::new(message)));
    destination
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
    let implicit = Destination::Implicit {
        name: checked.capabilities.fingerprint(),
    };
    let about_task = checked.method.starts_with("tasks/");
    let task = checked
        .name
        .as_deref()
        .filter(|_| about_task)
        .and_then(|id| id.split_once('-'));
    let state = checked.request_state.as_ref().zip(config.state_sealer.as_ref());
    let state = state.and_then(|(state, sealer)| RequestState::open(state, &**sealer, principal));
    // A retry belongs to the session that has asked, whatever it declares now, and so does a
    // request about a task.
    let tag = state.as_ref().map(|state| &*state.tag).or(task.map(|(tag, _)| tag));
    let destination = tagged(tag, implicit);
    request.extensions_mut().insert(Parsed::Modern(Box::new(checked)));
    destination
}

/// The session with this tag, if a request names one.
fn tagged(tag: Option<&str>, otherwise: Destination) -> Destination {
    match tag {
        Some(tag) => Destination::Tagged {
            tag: tag.into(),
            otherwise: Box::new(otherwise),
        },
        None => otherwise,
    }
}

/// The state of a conversation before its first server, for a request that [`route`] has seen and
/// whose session does not exist. `None` for a request that makes no session.
#[must_use]
pub fn initial_snapshot(request: &Request<Bytes>) -> Option<Snapshot> {
    match request.extensions().get()? {
        Parsed::Modern(request) => {
            let params = request.capabilities.initialize_params(request.client_info.as_deref());
            Snapshot::without_handshake(&params, LATEST, true)
        }
        // A client that has made no handshake declares nothing.
        Parsed::Legacy(_) => {
            let params = ClientCapabilities::parse("{}")?.initialize_params(None);
            Snapshot::without_handshake(&params, LATEST, false)
        }
    }
}
