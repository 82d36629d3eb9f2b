//! One HTTP exchange: a POST with a message, a GET that listens or resumes, or the DELETE that ends
//! the session (MCP 2025-11-25, "Streamable HTTP").
//!
//! `Origin`, authentication, session, media types and the size of the body are checked before.

mod modern;
pub(crate) mod response;
mod sse;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};

use self::sse::SseBody;
use crate::{
    Body,
    config::Config,
    error::{Refusal, RejectReason},
    jsonrpc::{Envelope, Id, MessageError, MessageKind},
    machine,
    modern::{ModernError, request},
    parsed::Parsed,
    shared::{Shared, StreamHandle},
    streams::{EventId, Reader, ResponseMode},
    versions,
};

/// The outcome of an exchange.
pub enum Outcome {
    /// The response.
    Answer(Response<Body>),
    /// A server has accepted the first `initialize` of the session.
    Opened(Response<Body>),
    /// The client ends the session.
    End(Response<Body>),
    /// No server could be had, or the conversation has ended: the error of the owner.
    Unserved(Refusal),
}

/// The answer to an exchange with requests.
enum Answer {
    Json(Response<Body>),
    Stream(Response<Body>),
    Unserved(Refusal),
}

/// Serves one exchange. Dropping the future detaches the reader.
pub(crate) async fn serve(shared: &Arc<Shared>, config: &Config, request: Request<Bytes>) -> Outcome {
    if let Some(why) = shared.step(|machine| machine.closed()) {
        return Outcome::Unserved(why);
    }
    let (mut parts, body) = request.into_parts();
    match parts.extensions.remove() {
        Some(Parsed::Modern(request)) => return modern::serve(shared, config, &parts.headers, *request).await,
        Some(Parsed::Legacy(message)) => return post(shared, config, &parts.headers, *message, false).await,
        None => {}
    }
    let served = match parts.method {
        Method::POST => match Envelope::parse(&body) {
            Ok(message) => return post(shared, config, &parts.headers, message, true).await,
            Err(MessageError::Batch) => post_batch(shared, config, &parts.headers, &body).await,
            Err(MessageError::NotJsonRpc(Some(id))) => {
                let reason = RejectReason::InvalidMessage(MessageError::NotJsonRpc(None));
                return Outcome::Answer(response::rejected(&reason, Some(&id)));
            }
            Err(error) => Err(RejectReason::InvalidMessage(error)),
        },
        Method::GET => listen(shared, config, &parts.headers).map(Outcome::Answer),
        Method::DELETE => check_version(shared, &parts.headers).map(|()| Outcome::End(response::deleted())),
        _other => Err(RejectReason::MethodNotAllowed),
    };
    served.unwrap_or_else(|reason| Outcome::Answer(response::rejected(&reason, None)))
}

/// Serves a message. It has no session id unless it is `keyed`.
async fn post(shared: &Arc<Shared>, config: &Config, headers: &HeaderMap, message: Envelope, keyed: bool) -> Outcome {
    let accepted = match message.kind().clone() {
        MessageKind::Request { id, .. } if keyed && request::meta_version(&message).is_some() => {
            // Its header names an earlier version, or it would have come without the session.
            let error = ModernError::header("the header mcp-protocol-version differs from the body");
            return Outcome::Answer(response::modern_rejected(&error, Some(&id)));
        }
        MessageKind::Request { id, method } => {
            return match post_request(shared, config, headers, message, (&id, &method), keyed).await {
                Ok(outcome) => outcome,
                Err(reason) => Outcome::Answer(response::rejected(&reason, Some(&id))),
            };
        }
        MessageKind::Notification { method } => check_version(shared, headers)
            .and_then(|()| shared.step(|machine| machine.notify(Instant::now(), message, &method, keyed))),
        MessageKind::Response { id, .. } => {
            check_version(shared, headers).and_then(|()| shared.step(|machine| machine.respond(&message, id.as_ref())))
        }
    };
    Outcome::Answer(match accepted {
        Ok(()) => response::accepted(),
        Err(reason) => response::rejected(&reason, None),
    })
}

async fn post_request(
    shared: &Arc<Shared>,
    config: &Config,
    headers: &HeaderMap,
    message: Envelope,
    (id, method): (&Id, &str),
    keyed: bool,
) -> Result<Outcome, RejectReason> {
    config.era_counts.note_legacy();
    let to_json = |lines: &[Bytes]| lines.first().cloned();
    if method != "initialize" {
        check_version(shared, headers)?;
        let reader = shared.step(|machine| machine.request(Instant::now(), message, id.clone(), method, keyed))?;
        let answer = answer(shared, config, Some(config.sse_upgrade_delay), reader, to_json).await;
        return Ok(answer.into());
    }
    // The body of `initialize` names the version; a header there is a leftover. A session gets its
    // id only after a server has accepted `initialize`, and an event stream would have to begin
    // before.
    let (reader, opens) = shared.step(|machine| {
        let opens = !machine.handshake.has_record();
        let reader = machine.request(Instant::now(), message, id.clone(), method, true)?;
        Ok::<_, RejectReason>((reader, opens))
    })?;
    let answer = answer(shared, config, None, reader, to_json).await;
    let accepted = opens && shared.step(|machine| machine.handshake.has_record());
    Ok(match (answer, accepted) {
        (Answer::Json(response), true) => Outcome::Opened(response),
        (answer, _) => answer.into(),
    })
}

/// Serves a batch, if the negotiated revision has batches.
async fn post_batch(
    shared: &Arc<Shared>,
    config: &Config,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Outcome, RejectReason> {
    check_version(shared, headers)?;
    if !shared.step(|machine| machine.has_batches()) {
        return Err(MessageError::Batch.into());
    }
    let messages = machine::split_batch(body)?;
    let Some(reader) = shared.step(|machine| machine.batch(Instant::now(), messages))? else {
        return Ok(Outcome::Answer(response::accepted()));
    };
    let to_array = |lines: &[Bytes]| Some([b"[", lines.join(&b","[..]).as_slice(), b"]"].concat().into());
    let answer = answer(shared, config, Some(config.sse_upgrade_delay), reader, to_array).await;
    Ok(answer.into())
}

/// Answers with JSON if the responses come first, and with an event stream after any other message
/// or a delay. The delay begins when there is a server.
async fn answer(
    shared: &Arc<Shared>,
    config: &Config,
    delay: Option<Duration>,
    reader: Reader,
    to_json: impl Fn(&[Bytes]) -> Option<Bytes>,
) -> Answer {
    let handle = StreamHandle::new(shared, reader);
    let mode = match delay {
        None => handle.response_mode().await,
        Some(delay) => loop {
            match timeout(delay, handle.response_mode()).await {
                Ok(mode) => break mode,
                Err(_elapsed) if handle.is_waiting() => {}
                Err(_elapsed) => break ResponseMode::Sse,
            }
        },
    };
    match mode {
        ResponseMode::Json(lines) => Answer::Json(match to_json(&lines) {
            Some(json) => response::json(StatusCode::OK, handle.unflushed().track(json)),
            // Unreachable: no other reader can take the responses before the stream is primed.
            None => response::rejected(&RejectReason::ServerEnded, None),
        }),
        ResponseMode::Sse => Answer::Stream(response::sse(SseBody::new(handle, config))),
        ResponseMode::Unserved(why) => Answer::Unserved(why),
    }
}

/// Resumes the stream of the event that a GET names; any other GET opens a new stream. An invalid
/// event id is ignored.
fn listen(shared: &Arc<Shared>, config: &Config, headers: &HeaderMap) -> Result<Response<Body>, RejectReason> {
    check_version(shared, headers)?;
    let from = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = from.and_then(EventId::parse);
    let reader = shared.step(|machine| match &from {
        Some(from) => machine.resume(Instant::now(), from),
        None => machine.listen(Instant::now()),
    })?;
    Ok(response::sse(SseBody::new(StreamHandle::new(shared, reader), config)))
}

/// Accepts the supported versions, the negotiated one, and no version at all (MCP 2025-11-25,
/// "Protocol Version Header").
fn check_version(shared: &Shared, headers: &HeaderMap) -> Result<(), RejectReason> {
    for version in headers.get_all("mcp-protocol-version") {
        let version = String::from_utf8_lossy(version.as_bytes()).trim().to_owned();
        let supported = versions::SUPPORTED.contains(&version.as_str())
            || shared.step(|machine| machine.handshake.version() == Some(version.as_str()));
        if !supported {
            return Err(RejectReason::UnsupportedVersion(version));
        }
    }
    Ok(())
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Json(response) | Answer::Stream(response) => Self::Answer(response),
            Answer::Unserved(why) => Self::Unserved(why),
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(response) => f.debug_tuple("Answer").field(&response.status()).finish(),
            Self::Opened(response) => f.debug_tuple("Opened").field(&response.status()).finish(),
            Self::End(response) => f.debug_tuple("End").field(&response.status()).finish(),
            Self::Unserved(why) => f.debug_tuple("Unserved").field(&why.to_string()).finish(),
        }
    }
}
