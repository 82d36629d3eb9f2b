//! One HTTP exchange: a POST that brings a message, or a GET that listens or comes back (MCP 2025-11-25, "Streamable HTTP").
//!
//! Origin, authentication, session, media types and the size of the body have been dealt with before. Ending the
//! session is not a matter of the bridge, so DELETE is refused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};

use crate::{
    Body,
    config::Config,
    envelope::{Envelope, Kind, Malformed},
    event_id::EventId,
    id::Id,
    legacy,
    refusal::Refusal,
    respond,
    shared::{Outlet, Shared},
    sse::EventStream,
    streams::Form,
};

/// Marks, in the extensions of a response to a message, that the server had ended by then. The body says so to the client;
/// this says it to whoever decides what becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerEnded;

/// Marks, beside [`ServerEnded`], that the server can have read nothing of the request: it may be made again, of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread;

/// How many answers an exchange was asked for.
#[derive(Clone, Copy)]
enum Count {
    One,
    Batch,
}

/// Serves one exchange. Dropping the future hangs up on the exchange and nothing else.
pub(crate) async fn serve(shared: &Arc<Shared>, config: &Config, request: Request<Bytes>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::POST {
        match Envelope::parse(&body) {
            Ok(message) => post(shared, config, &parts.headers, message).await,
            Err(Malformed::Batch) => batch(shared, config, &parts.headers, &body).await,
            Err(why) => {
                let id = if let Malformed::NotJsonRpc(id) = &why {
                    id.clone()
                } else {
                    None
                };
                respond::refused(&Refusal::Malformed(why), id.as_ref())
            }
        }
    } else if parts.method == Method::GET {
        listen(shared, config, &parts.headers)
    } else {
        respond::refused(&Refusal::Method, None)
    }
}

async fn post(shared: &Arc<Shared>, config: &Config, headers: &HeaderMap, message: Envelope) -> Response<Body> {
    match message.kind().clone() {
        Kind::Request { id, method } => match ask(shared, headers, message, &id, &method) {
            Ok(outlet) => {
                let stream = outlet.stream();
                let response = answer(config, patience(config, &method), outlet, Count::One).await;
                let mut response = mark_ended(shared, response);
                if shared.step(|machine| machine.was_unread(stream)) {
                    response.extensions_mut().insert(Unread);
                }
                response
            }
            Err(refusal) => respond::refused(&refusal, Some(&id)),
        },
        Kind::Notification { method } => {
            let taken = check_version(shared, headers)
                .and_then(|()| shared.step(|machine| machine.notify(Instant::now(), message, &method)));
            taken.map_or_else(|refusal| not_taken(&refusal), |()| respond::accepted())
        }
        Kind::Response { id, .. } => {
            let taken = check_version(shared, headers)
                .and_then(|()| shared.step(|machine| machine.respond(&message, id.as_ref())));
            taken.map_or_else(|refusal| not_taken(&refusal), |()| respond::accepted())
        }
    }
}

/// A notification or a response that nobody takes. If the server has ended it has read nothing of it.
fn not_taken(refusal: &Refusal) -> Response<Body> {
    let mut response = respond::refused(refusal, None);
    if matches!(refusal, Refusal::Ended) {
        response.extensions_mut().insert(ServerEnded);
        response.extensions_mut().insert(Unread);
    }
    response
}

/// A batch is taken where the revision has batches.
async fn batch(shared: &Arc<Shared>, config: &Config, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let taken = check_version(shared, headers).and_then(|()| {
        if !shared.step(|machine| machine.has_batches()) {
            return Err(Refusal::Malformed(Malformed::Batch));
        }
        let messages = legacy::split(body).map_err(Refusal::Malformed)?;
        shared.step(|machine| machine.batch(Instant::now(), messages))
    });
    match taken {
        Ok(Some(reader)) => {
            let outlet = Outlet::new(shared, reader);
            let stream = outlet.stream();
            let response = answer(config, config.json_patience, outlet, Count::Batch).await;
            // What of a batch was read is not told apart, so it is not said to be unread; the note goes.
            shared.step(|machine| machine.was_unread(stream));
            mark_ended(shared, response)
        }
        Ok(None) => respond::accepted(),
        Err(refusal) => respond::refused(&refusal, None),
    }
}

fn ask(shared: &Arc<Shared>, headers: &HeaderMap, message: Envelope, id: &Id, method: &str) -> Result<Outlet, Refusal> {
    // An `initialize` says in its body which version it wants; a header is left over from somewhere.
    if method != "initialize" {
        check_version(shared, headers)?;
    }
    let stream = shared.step(|machine| machine.request(Instant::now(), message, id.clone(), method))?;
    Ok(Outlet::new(shared, stream))
}

/// How long an answer may take before it becomes a stream. The one to `initialize` is waited for: a session is worth its id
/// only if the server has said yes, and a stream would have to begin before that is known.
fn patience(config: &Config, method: &str) -> Duration {
    if method == "initialize" {
        config.handshake_timeout
    } else {
        config.json_patience
    }
}

/// Marks an answer that came after the server's end.
fn mark_ended(shared: &Shared, mut response: Response<Body>) -> Response<Body> {
    if shared.step(|machine| machine.has_ended()) {
        response.extensions_mut().insert(ServerEnded);
    }
    response
}

/// An answer that comes first is JSON; anything before it, or a while of silence, makes a stream.
async fn answer(config: &Config, patience: Duration, outlet: Outlet, count: Count) -> Response<Body> {
    match (timeout(patience, outlet.form()).await, count) {
        (Ok(Form::Whole(mut lines)), Count::One) => match lines.pop() {
            Some(line) => respond::message(StatusCode::OK, outlet.lent().lend(line)),
            // Nobody else can have read the stream of a request before it has become one; this is only for the sake of saying something.
            None => respond::refused(&Refusal::Ended, None),
        },
        (Ok(Form::Whole(lines)), Count::Batch) => {
            respond::message(StatusCode::OK, outlet.lent().lend(respond::array(&lines)))
        }
        (Ok(Form::Events) | Err(_), _) => respond::events(EventStream::new(outlet, config)),
    }
}

/// A GET that names an event goes on behind it; any other listens from now on. A name that no bridge has given is no name.
fn listen(shared: &Arc<Shared>, config: &Config, headers: &HeaderMap) -> Response<Body> {
    let from = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = from.and_then(EventId::parse);
    let reader = check_version(shared, headers).and_then(|()| {
        shared.step(|machine| match &from {
            Some(from) => machine.resume(Instant::now(), from),
            None => machine.listen(Instant::now()),
        })
    });
    match reader {
        Ok(reader) => respond::events(EventStream::new(Outlet::new(shared, reader), config)),
        Err(refusal) => respond::refused(&refusal, None),
    }
}

/// A version that is named must be one that is served, or the one that the session has negotiated; naming none is fine
/// (MCP 2025-11-25, "Protocol Version Header").
fn check_version(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    for named in headers.get_all("mcp-protocol-version") {
        let named = String::from_utf8_lossy(named.as_bytes()).trim().to_owned();
        let served = legacy::SUPPORTED.contains(&named.as_str())
            || shared.step(|machine| machine.version() == Some(named.as_str()));
        if !served {
            return Err(Refusal::Version(named));
        }
    }
    Ok(())
}
