//! One exchange at the MCP endpoint: who asks, which session, which backend.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{
    ending::Shut,
    keeper, listen,
    open::{self, MCP_SESSION_ID},
    ports::{BackendGone, Body, Caller, EndReason, NotProcessed, SessionKey, SessionSpan},
    refusal::{Refusal, whole},
    registry::Shared,
    seat::Session,
    shallow::{self, Message},
    table::Found,
    wake,
};

/// How often a request is made again that its backend has not read.
const MOST_UNREAD: usize = 3;

/// More than one session id was sent.
struct AmbiguousId;

/// Serves one exchange.
pub(crate) async fn serve(shared: &Arc<Shared>, request: Request<Bytes>) -> Response<Body> {
    // A cheap handle: an error has to echo the id even when the request is already with the backend.
    let body = request.body().clone();
    let is_post = request.method() == Method::POST;
    let mut of = None;
    let mut response = match route(shared, request, &mut of).await {
        Ok(response) => response,
        Err(refusal) if is_post => refusal.answer(Message::parse(&body).id()),
        Err(refusal) => refusal.answer(None),
    };
    if let Some(span) = of {
        response.extensions_mut().insert(SessionSpan(span));
    }
    response
}

/// Takes from a request what is between the client and the registry. A backend has its own credential, and must never
/// see the client's (MCP, security best practices, "Token Passthrough").
pub(crate) fn outward(mut request: Request<Bytes>) -> Request<Bytes> {
    let headers = request.headers_mut();
    for name in [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        MCP_SESSION_ID,
    ] {
        headers.remove(name);
    }
    request
}

/// Holds `pin` for as long as the body is there: servers drop a body when it has ended or the client is gone.
pub(crate) fn pinned<P: Send + 'static>(response: Response<Body>, pin: P) -> Response<Body> {
    response.map(|body| {
        body.map_frame(move |frame| {
            let _held = &pin;
            frame
        })
        .boxed_unsync()
    })
}

/// Fills `of` with the span of the session that the exchange belongs to, as soon as there is one.
async fn route(
    shared: &Arc<Shared>,
    request: Request<Bytes>,
    of: &mut Option<Span>,
) -> Result<Response<Body>, Refusal> {
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        tracing::error!("a request has no caller: whoever embeds the registry has to authenticate it");
        return Err(Refusal::NoCaller);
    };
    if ![Method::POST, Method::GET, Method::DELETE].contains(request.method()) {
        return Err(Refusal::MethodNotAllowed);
    }
    if shared.table.is_closed() {
        return Err(Refusal::Stopping);
    }
    let unknown = Refusal::Unknown(shared.config.unknown_status);
    match session_id(&request).map_err(|AmbiguousId| unknown)? {
        None if request.method() == Method::POST => without_session(shared, caller, request, of).await,
        None => Err(Refusal::NoSessionId),
        Some(value) => {
            let session = find(shared, &caller, value)?;
            let span = of.insert(session.span.clone()).clone();
            within(shared, &session, &caller, request).instrument(span).await
        }
    }
}

/// Only a handshake needs no session.
async fn without_session(
    shared: &Arc<Shared>,
    caller: Arc<Caller>,
    request: Request<Bytes>,
    of: &mut Option<Span>,
) -> Result<Response<Body>, Refusal> {
    match Message::parse(request.body()) {
        Message::Request {
            method: shallow::Method::Initialize,
            ..
        } => {}
        Message::Request {
            method: shallow::Method::Discover,
            ..
        } => return Err(Refusal::DiscoverNotKnown),
        Message::Request {
            method: shallow::Method::Other(_),
            ..
        }
        | Message::OneWay => {
            return Err(Refusal::NoSessionId);
        }
        Message::Malformed { .. } => return Err(Refusal::Malformed),
        Message::NotJson => return Err(Refusal::NotJson),
    }
    open::open(shared, &caller, request, of).await
}

async fn within(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    caller: &Arc<Caller>,
    request: Request<Bytes>,
) -> Result<Response<Body>, Refusal> {
    session.bind_caller(caller);
    if request.method() == Method::DELETE {
        shared.end(session, EndReason::Deleted, Shut::Whatever);
        let mut response = Response::new(whole(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    // A stream that only listens shows that the client is there, not that it will come back: it does not pin.
    if request.method() == Method::GET {
        let seat = loop {
            match session.seat() {
                // Nobody has noticed yet.
                Some(seat) if seat.backend.is_gone() => keeper::lost(shared, session, &seat),
                seat => break seat,
            }
        };
        if !session.inner().life.touch(Instant::now()) {
            return Err(Refusal::Ended);
        }
        shared.mark_dirty(session);
        let Some(seat) = seat else {
            return listen::parked(shared, session);
        };
        let response = seat.backend.serve(outward(request)).await;
        return Ok(listen::until_retired(without_id(response), &seat));
    }
    let pin = session.pin(shared).ok_or(Refusal::Ended)?;
    shared.mark_dirty(session);
    let request = outward(request);
    let mut again = MOST_UNREAD;
    let (entered, response) = loop {
        let entered = wake::enter(shared, session).await?;
        let response = entered.0.backend.serve(request.clone()).await;
        if again == 0 || response.extensions().get::<NotProcessed>().is_none() {
            break (entered, without_id(response));
        }
        // It died before anybody has noticed, and has read nothing of this.
        again -= 1;
        keeper::lost(shared, session, &entered.0);
    };
    if is_answer(&response) && entered.0.mark_answered() {
        session.inner().streak.cleared();
    }
    Ok(pinned(response, (pin, entered)))
}

/// Whether it shows that the backend can answer. Refusals, and that a message was taken (202), can come from what stands before it.
fn is_answer(response: &Response<Body>) -> bool {
    response.status() == StatusCode::OK && response.extensions().get::<BackendGone>().is_none()
}

/// The id is on the answer to `initialize` alone: a later one that differs would be adopted by some clients.
fn without_id(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().remove(MCP_SESSION_ID);
    response
}

fn find(shared: &Shared, caller: &Arc<Caller>, value: &HeaderValue) -> Result<Arc<Session>, Refusal> {
    let unknown = Refusal::Unknown(shared.config.unknown_status);
    let key = SessionKey::of_header(value).ok_or(unknown)?;
    match shared.table.find(&key) {
        Found::Session(session) if session.grant == caller.grant => Ok(session),
        Found::Session(session) => {
            tracing::warn!(session = %session.tag, "a session was asked for with another grant");
            Err(Refusal::OtherGrant)
        }
        Found::Ended => Err(Refusal::Ended),
        Found::Unknown => Err(Refusal::Unknown(shared.config.unknown_status)),
    }
}

/// The header that names the session. Two of them name nothing: which one was meant is not for us to guess.
fn session_id(request: &Request<Bytes>) -> Result<Option<&HeaderValue>, AmbiguousId> {
    let mut values = request.headers().get_all(MCP_SESSION_ID).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(AmbiguousId),
    }
}
