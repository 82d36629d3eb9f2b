//! One HTTP exchange: a POST that brings a message, or a GET that listens (MCP 2025-11-25, "Streamable HTTP").
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
    id::Id,
    legacy,
    refusal::Refusal,
    respond,
    shared::{Outlet, Shared},
    sse::EventStream,
};

/// Marks, in the extensions of a response to a request, that the server had ended by then. The body says so to the client;
/// this says it to whoever decides what becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerEnded;

/// Serves one exchange. Dropping the future hangs up on the exchange and nothing else.
pub(crate) async fn serve(shared: &Arc<Shared>, config: &Config, request: Request<Bytes>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::POST {
        match Envelope::parse(&body) {
            Ok(message) => post(shared, config, &parts.headers, message).await,
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
                let response = answer(config, patience(config, &method), outlet, &id).await;
                mark_ended(shared, response)
            }
            Err(refusal) => respond::refused(&refusal, Some(&id)),
        },
        Kind::Notification { method } => {
            let taken = check_version(shared, headers)
                .and_then(|()| shared.step(|machine| machine.notify(Instant::now(), message, &method)));
            taken.map_or_else(|refusal| respond::refused(&refusal, None), |()| respond::accepted())
        }
        Kind::Response { id, .. } => {
            let taken = check_version(shared, headers)
                .and_then(|()| shared.step(|machine| machine.respond(&message, id.as_ref())));
            taken.map_or_else(|refusal| respond::refused(&refusal, None), |()| respond::accepted())
        }
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
async fn answer(config: &Config, patience: Duration, outlet: Outlet, id: &Id) -> Response<Body> {
    let first = match timeout(patience, outlet.next()).await {
        Ok(Some(event)) if event.last => return respond::message(StatusCode::OK, event.line),
        Ok(Some(event)) => Some(event),
        // A stream of a request ends with its answer, so this is only for the sake of saying something.
        Ok(None) => return respond::refused(&Refusal::Ended, Some(id)),
        Err(_) => None,
    };
    respond::events(EventStream::new(outlet, first.as_ref(), config.keep_alive))
}

fn listen(shared: &Arc<Shared>, config: &Config, headers: &HeaderMap) -> Response<Body> {
    let stream = check_version(shared, headers).and_then(|()| shared.step(|machine| machine.listen(Instant::now())));
    match stream {
        Ok(stream) => respond::events(EventStream::new(Outlet::new(shared, stream), None, config.keep_alive)),
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
