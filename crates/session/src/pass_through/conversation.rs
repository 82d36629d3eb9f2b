//! Which server gets an exchange, and what waits for one.

use std::{mem, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    server::{Begun, InFlight, PassThroughServer},
    state::State,
    streams::{ParkedGuard, comments, until_cancelled},
};
use crate::{
    exchange::{full_body, guard_body, json_rpc_error},
    jsonrpc,
    ports::{
        Body, BoxError, BoxFuture, Conversation, DetachReason, Outcome, Reply, Server, ServerNumber, SessionError,
        SessionHandle, Snapshot, SpawnError, SpawnOrder, Spawner, StartOrder,
    },
    sync::{Mutex, lock},
};

/// The number of times that a request is sent again which its backend has not read.
const MAX_RESENDS: usize = 3;
/// The number of backends that are started while the client's handshake goes on in the one before.
const MAX_STARTS: usize = 3;
/// The number of streams that may be parked.
const MAX_PARKED: usize = 16;
/// The largest answer to `initialize` that is read. Servers send instructions there, not data.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct PassThroughConversation {
    spawner: Arc<dyn Spawner>,
    keep_alive: Duration,
    handle: SessionHandle,
    state: Mutex<State>,
}

impl PassThroughConversation {
    pub(super) fn new(
        spawner: Arc<dyn Spawner>,
        keep_alive: Duration,
        handle: SessionHandle,
        snapshot: Option<Snapshot>,
    ) -> Self {
        Self {
            spawner,
            keep_alive,
            handle,
            state: Mutex::new(State::new(snapshot)),
        }
    }

    /// Begins an exchange on a server newer than `after`, which it waits for if need be.
    async fn begin(&self, mut after: ServerNumber) -> Result<Begun, SessionError> {
        let waiting = {
            let mut state = lock(&self.state);
            if let Some(why) = state.closed {
                return Err(why);
            }
            if let Some(current) = &state.current {
                if current.number > after && !current.backend.is_gone() {
                    return Ok(current.begin());
                }
                after = after.max(current.number);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.retain(|waiting| !waiting.is_closed());
            state.waiting.push(sender);
            receiver
        };
        self.handle.want(after);
        waiting.await.unwrap_or(Err(SessionError::Aborted))
    }

    /// Serves the `initialize` that opens the session. A server that is gone before it has answered
    /// is followed by the next one, for as long as the registry starts one.
    async fn open(&self, request: Request<Bytes>) -> Result<Outcome, SessionError> {
        let mut after = ServerNumber::default();
        loop {
            let begun = self.begin(after).await?;
            let server = Arc::clone(&begun.0);
            after = server.number;
            let in_flight = InFlight::new(begun, self.handle.clone());
            let answer = async {
                match server.backend.serve(request.clone()).await {
                    Reply::Response(response) => Some(classify(response).await),
                    Reply::Gone { .. } => None,
                }
            };
            let answer = tokio::select! {
                biased;
                // It has died, or it takes too long and is being stopped.
                () = server.replaced.cancelled() => None,
                answer = answer => answer,
            };
            let Some(answer) = answer else { continue };
            let (response, accepted) = answer.map_err(|error| {
                tracing::warn!(error, "the answer to initialize cannot be read");
                SessionError::NotStarted {
                    retry_after: Duration::ZERO,
                }
            })?;
            let response = guard_body(response, in_flight);
            if !accepted {
                return Ok(Outcome::Answer(response));
            }
            server.mark_answered();
            lock(&self.state).opened = true;
            return Ok(Outcome::Opened(response));
        }
    }

    async fn post(&self, request: Request<Bytes>) -> Result<Outcome, SessionError> {
        let (mut after, mut resends) = (ServerNumber::default(), MAX_RESENDS);
        loop {
            let begun = self.begin(after).await?;
            let server = Arc::clone(&begun.0);
            let in_flight = InFlight::new(begun, self.handle.clone());
            let response = match server.backend.serve(request.clone()).await {
                Reply::Gone { unread: true, .. } if resends > 0 => {
                    resends -= 1;
                    after = server.number;
                    continue;
                }
                Reply::Gone { response, .. } => response,
                Reply::Response(response) => {
                    // Errors, and 202 for a message, can come from what is before the server.
                    if response.status() == StatusCode::OK {
                        server.mark_answered();
                    }
                    response
                }
            };
            return Ok(Outcome::Answer(guard_body(response, in_flight)));
        }
    }

    async fn listen(&self, request: Request<Bytes>) -> Result<Outcome, SessionError> {
        let current = {
            let mut state = lock(&self.state);
            if let Some(why) = state.closed {
                return Err(why);
            }
            match &state.current {
                Some(current) if !current.backend.is_gone() => Arc::clone(current),
                _ => return Ok(Outcome::Answer(self.park(&mut state))),
            }
        };
        let (Reply::Response(response) | Reply::Gone { response, .. }) = current.backend.serve(request).await;
        Ok(Outcome::Answer(until_cancelled(response, current.replaced.clone())))
    }

    /// Keeps a stream open until there is a server.
    fn park(&self, state: &mut State) -> Response<Body> {
        let parked = state.parked.get_or_insert_default();
        if Arc::strong_count(&parked.count) > MAX_PARKED {
            let error = json!({ "code": -32000, "message": "Too many GET streams are open on this session" });
            let mut response = json_rpc_error(StatusCode::TOO_MANY_REQUESTS, &error, None);
            let after = HeaderValue::from_static("5");
            response.headers_mut().insert(header::RETRY_AFTER, after);
            return response;
        }
        let guard = ParkedGuard {
            count: Some(Arc::clone(&parked.count)),
            handle: self.handle.clone(),
        };
        until_cancelled(comments(self.keep_alive, guard), parked.ended.clone())
    }

    async fn start_server(&self, order: StartOrder) -> Result<Arc<dyn Server>, SpawnError> {
        for _ in 0..MAX_STARTS {
            let snapshot = lock(&self.state).latest_snapshot();
            let backend = self
                .spawner
                .spawn(SpawnOrder {
                    caller: Arc::clone(&order.caller),
                    snapshot: snapshot.clone(),
                    tag: Arc::clone(&order.tag),
                })
                .await?;
            {
                let mut state = lock(&self.state);
                if state.latest_snapshot() == snapshot {
                    let server = PassThroughServer::new(order.number, backend);
                    state.others.push(Arc::downgrade(&server));
                    return Ok(server);
                }
            }
            // The client has continued its handshake meanwhile, which the new one does not know.
            backend.stop().await;
        }
        Err(SpawnError::NotReady("the handshake of the client goes on".into()))
    }
}

impl Conversation for PassThroughConversation {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let outcome = if request.method() == Method::DELETE {
                let mut response = Response::new(full_body(Bytes::new()));
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(Outcome::End(response))
            } else if request.method() == Method::GET {
                self.listen(request).await
            } else if lock(&self.state).opened {
                self.post(request).await
            } else {
                self.open(request).await
            };
            outcome.unwrap_or_else(Outcome::Unserved)
        })
    }

    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Arc<dyn Server>, SpawnError>> {
        Box::pin(async move { self.start_server(order).await })
    }

    fn attach(&self, server: ServerNumber) {
        lock(&self.state).attach(server);
    }

    fn refuse(&self, why: SessionError) {
        let waiting = mem::take(&mut lock(&self.state).waiting);
        for waiting in waiting {
            drop(waiting.send(Err(why)));
        }
    }

    fn retire_if_idle(&self, server: ServerNumber) -> bool {
        let mut state = lock(&self.state);
        let current = state.current.as_ref().filter(|current| current.number == server);
        let idle = current.is_some_and(|current| current.in_flight() == 0);
        if idle {
            state.vacate();
        }
        idle
    }

    fn detach(&self, server: ServerNumber, _reason: DetachReason) {
        let mut state = lock(&self.state);
        if state.is_current(server) {
            state.vacate();
        }
    }

    fn in_flight(&self, server: ServerNumber) -> usize {
        let server = lock(&self.state).server(server);
        server.map_or(0, |server| server.in_flight())
    }

    fn drained(&self, server: ServerNumber) -> BoxFuture<'static, ()> {
        let server = lock(&self.state).server(server);
        Box::pin(async move {
            if let Some(server) = server {
                server.drained().await;
            }
        })
    }

    fn revision(&self) -> u64 {
        let mut state = lock(&self.state);
        state.latest_snapshot();
        state.revision
    }

    fn snapshot(&self) -> Option<Snapshot> {
        lock(&self.state).latest_snapshot()
    }

    fn is_blank(&self) -> bool {
        lock(&self.state).is_blank()
    }

    fn close(&self, why: SessionError) {
        let waiting = {
            let mut state = lock(&self.state);
            state.closed = Some(why);
            state.vacate();
            state.unpark();
            mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            drop(waiting.send(Err(why)));
        }
    }
}

/// Reads the answer to `initialize`, unless it is a stream. True if the backend has accepted.
async fn classify(response: Response<Body>) -> Result<(Response<Body>, bool), BoxError> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_stream = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let is_ok = response.status() == StatusCode::OK;
    if !is_ok || is_stream {
        return Ok((response, is_ok));
    }
    let (parts, body) = response.into_parts();
    // Boxed again, so that the future that reads it is plainly `Send`.
    let body = Limited::new(body, MAX_ANSWER_BYTES).boxed_unsync();
    let answer = body.collect().await?.to_bytes();
    let accepted = jsonrpc::is_success(&answer);
    Ok((Response::from_parts(parts, full_body(answer)), accepted))
}
