//! One HTTP exchange: a POST with a message, or a GET that listens or resumes (MCP 2025-11-25,
//! "Streamable HTTP").
//!
//! `Origin`, authentication, session, media types and the size of the body are checked before. A
//! bridge does not end sessions, so it rejects DELETE.

mod response;
mod sse;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};

use self::sse::SseBody;
use crate::{
    Body,
    config::Config,
    error::RejectReason,
    jsonrpc::{Envelope, Id, MessageError, MessageKind},
    legacy,
    state::{BridgeState, StreamHandle},
    streams::{EventId, Reader, ResponseMode},
};

/// A response extension: the server had ended by the time of this response.
///
/// The body tells the client; the extension tells the owner of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerEnded;

/// A response extension beside [`ServerEnded`]: the server cannot have read any part of the
/// request, so it is safe to send the request to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProcessed;

/// Serves one exchange. Dropping the future detaches the reader and has no other effect.
pub(crate) async fn serve(state: &Arc<BridgeState>, config: &Config, request: Request<Bytes>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let served = match parts.method {
        Method::POST => match Envelope::parse(&body) {
            Ok(message) => return post(state, config, &parts.headers, message).await,
            Err(MessageError::Batch) => post_batch(state, config, &parts.headers, &body).await,
            Err(MessageError::NotJsonRpc(Some(id))) => {
                let reason = RejectReason::InvalidMessage(MessageError::NotJsonRpc(None));
                return response::rejected(&reason, Some(&id));
            }
            Err(error) => Err(RejectReason::InvalidMessage(error)),
        },
        Method::GET => listen(state, config, &parts.headers),
        _other => Err(RejectReason::MethodNotAllowed),
    };
    served.unwrap_or_else(|reason| response::rejected(&reason, None))
}

async fn post(state: &Arc<BridgeState>, config: &Config, headers: &HeaderMap, message: Envelope) -> Response<Body> {
    let accepted = match message.kind().clone() {
        MessageKind::Request { id, method } => {
            return match post_request(state, config, headers, message, &id, &method).await {
                Ok(response) => response,
                Err(reason) => response::rejected(&reason, Some(&id)),
            };
        }
        MessageKind::Notification { method } => check_version(state, headers)
            .and_then(|()| state.step(|machine| machine.notify(Instant::now(), message, &method))),
        MessageKind::Response { id, .. } => {
            check_version(state, headers).and_then(|()| state.step(|machine| machine.respond(&message, id.as_ref())))
        }
    };
    let Err(reason) = accepted else {
        return response::accepted();
    };
    let mut response = response::rejected(&reason, None);
    if reason == RejectReason::ServerEnded {
        response.extensions_mut().insert(ServerEnded);
        response.extensions_mut().insert(NotProcessed);
    }
    response
}

async fn post_request(
    state: &Arc<BridgeState>,
    config: &Config,
    headers: &HeaderMap,
    message: Envelope,
    id: &Id,
    method: &str,
) -> Result<Response<Body>, RejectReason> {
    let delay = if method == "initialize" {
        // A session gets its id only after the server has accepted `initialize`, and an event
        // stream would have to begin before.
        config.handshake_timeout
    } else {
        // The body of `initialize` names the version; a header there is a leftover.
        check_version(state, headers)?;
        config.sse_upgrade_delay
    };
    let reader = state.step(|machine| machine.request(Instant::now(), message, id.clone(), method))?;
    let mut response = answer(state, config, delay, reader, |lines| lines.first().cloned()).await;
    if state.step(|machine| machine.take_not_processed(reader.stream)) {
        response.extensions_mut().insert(NotProcessed);
    }
    Ok(response)
}

/// Serves a batch, if the negotiated revision has batches.
async fn post_batch(
    state: &Arc<BridgeState>,
    config: &Config,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, RejectReason> {
    check_version(state, headers)?;
    if !state.step(|machine| machine.has_batches()) {
        return Err(MessageError::Batch.into());
    }
    let messages = legacy::split_batch(body)?;
    let Some(reader) = state.step(|machine| machine.batch(Instant::now(), messages))? else {
        return Ok(response::accepted());
    };
    let to_array = |lines: &[Bytes]| Some([b"[", lines.join(&b","[..]).as_slice(), b"]"].concat().into());
    let response = answer(state, config, config.sse_upgrade_delay, reader, to_array).await;
    // The server may have read a part of the batch, so the response is never marked as not
    // processed.
    state.step(|machine| machine.take_not_processed(reader.stream));
    Ok(response)
}

/// Answers with JSON if the responses come first, and with an event stream after any other message
/// or a delay.
async fn answer(
    state: &Arc<BridgeState>,
    config: &Config,
    delay: Duration,
    reader: Reader,
    to_json: impl Fn(&[Bytes]) -> Option<Bytes>,
) -> Response<Body> {
    let handle = StreamHandle::new(state, reader);
    let mut response = match timeout(delay, handle.response_mode()).await {
        Ok(ResponseMode::Json(lines)) => match to_json(&lines) {
            Some(json) => response::json(StatusCode::OK, handle.unflushed().track(json)),
            // Unreachable: no other reader can take the responses before the stream is primed.
            None => response::rejected(&RejectReason::ServerEnded, None),
        },
        Ok(ResponseMode::Sse) | Err(_) => response::sse(SseBody::new(handle, config)),
    };
    if state.step(|machine| machine.has_ended()) {
        response.extensions_mut().insert(ServerEnded);
    }
    response
}

/// Resumes the stream of the event that a GET names; any other GET opens a new stream. An invalid
/// event id is ignored.
fn listen(state: &Arc<BridgeState>, config: &Config, headers: &HeaderMap) -> Result<Response<Body>, RejectReason> {
    check_version(state, headers)?;
    let from = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = from.and_then(EventId::parse);
    let reader = state.step(|machine| match &from {
        Some(from) => machine.resume(Instant::now(), from),
        None => machine.listen(Instant::now()),
    })?;
    Ok(response::sse(SseBody::new(StreamHandle::new(state, reader), config)))
}

/// Accepts the supported versions, the negotiated one, and no version at all (MCP 2025-11-25,
/// "Protocol Version Header").
fn check_version(state: &BridgeState, headers: &HeaderMap) -> Result<(), RejectReason> {
    for version in headers.get_all("mcp-protocol-version") {
        let version = String::from_utf8_lossy(version.as_bytes()).trim().to_owned();
        let supported = legacy::SUPPORTED.contains(&version.as_str())
            || state.step(|machine| machine.handshake.version() == Some(version.as_str()));
        if !supported {
            return Err(RejectReason::UnsupportedVersion(version));
        }
    }
    Ok(())
}
