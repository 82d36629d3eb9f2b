//! A conversation that records what its registry asks of it, and whose servers work and die on
//! command.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{StartOutcome, backend::response, credentials::far_future, host::Script, lock, scheduling_point};
use crate::{
    exchange::MCP_SESSION_ID,
    ports::{
        BoxFuture, Conversation, CredentialError, DetachReason, Outcome, Server, ServerNumber, SessionError,
        SessionHandle, Snapshot, SpawnError, StartOrder,
    },
};

/// A call of a registry to a [`ScriptedConversation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationCall {
    /// [`Conversation::start`].
    Start(ServerNumber),
    /// [`Conversation::attach`].
    Attach(ServerNumber),
    /// [`Conversation::refuse`].
    Refuse(SessionError),
    /// [`Conversation::retire_if_idle`] that has returned true.
    Retire(ServerNumber),
    /// [`Conversation::detach`].
    Detach(ServerNumber, DetachReason),
    /// [`Conversation::close`].
    Close(SessionError),
}

/// The client's side of a session.
///
/// Each POST waits for a server and is answered by it with the server's number. A DELETE with any
/// `MCP-Protocol-Version` is refused with 400. A POST with the header `ends` ends the session with
/// 404. Answers carry a session id, which no client must see.
#[derive(Debug)]
pub struct ScriptedConversation {
    script: Arc<Script>,
    handle: SessionHandle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<ConversationCall>,
    waiting: Vec<oneshot::Sender<Result<Arc<ScriptedServer>, SessionError>>>,
    started: Vec<Arc<ScriptedServer>>,
    current: Option<Arc<ScriptedServer>>,
    /// What is in flight on servers, beside the calls that they answer at once.
    work: BTreeMap<ServerNumber, watch::Sender<usize>>,
    snapshot: Option<Snapshot>,
    revision: u64,
    closed: Option<SessionError>,
}

/// A server of a [`ScriptedConversation`].
#[derive(Debug)]
pub struct ScriptedServer {
    number: ServerNumber,
    outcome: StartOutcome,
    done: CancellationToken,
    detached: CancellationToken,
    answered: AtomicBool,
    expires_at: Option<SystemTime>,
}

impl ScriptedConversation {
    pub(super) fn new(script: &Arc<Script>, handle: SessionHandle, snapshot: Option<Snapshot>) -> Self {
        Self {
            script: Arc::clone(script),
            handle,
            state: Mutex::new(State {
                snapshot,
                ..State::default()
            }),
        }
    }

    /// The calls of the registry since the last call of this.
    pub fn take_calls(&self) -> Vec<ConversationCall> {
        mem::take(&mut lock(&self.state).calls)
    }

    /// The servers that were started, the oldest first.
    pub fn servers(&self) -> Vec<Arc<ScriptedServer>> {
        lock(&self.state).started.clone()
    }

    /// Changes what the client has set.
    pub fn set(&self, snapshot: &'static str) {
        {
            let mut state = lock(&self.state);
            state.snapshot = Some(Snapshot(snapshot.into()));
            state.revision += 1;
        }
        self.handle.changed();
    }

    /// Begins work on a server that no HTTP exchange waits for.
    pub fn begin_work(&self, server: u64) {
        let mut state = lock(&self.state);
        let work = state.work.entry(ServerNumber(server)).or_default();
        work.send_modify(|work| *work += 1);
    }

    /// Ends such work.
    ///
    /// # Panics
    ///
    /// If there was none.
    pub fn end_work(&self, server: u64) {
        lock(&self.state).work[&ServerNumber(server)].send_modify(|work| *work -= 1);
        self.handle.touch();
    }

    /// Waits for a server newer than `after`.
    async fn server(&self, after: ServerNumber) -> Result<Arc<ScriptedServer>, SessionError> {
        let waiting = {
            let mut state = lock(&self.state);
            if let Some(why) = state.closed {
                return Err(why);
            }
            if let Some(current) = state.current.as_ref().filter(|current| current.number > after) {
                return Ok(Arc::clone(current));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push(sender);
            receiver
        };
        scheduling_point().await;
        self.handle.want(after);
        waiting.await.unwrap_or(Err(SessionError::Aborted))
    }

    async fn post(&self) -> Result<Outcome, SessionError> {
        let mut after = ServerNumber::default();
        loop {
            let server = self.server(after).await?;
            scheduling_point().await;
            after = server.number;
            if server.outcome == StartOutcome::Silent {
                server.detached.cancelled().await;
            }
            if !server.done.is_cancelled() && !server.detached.is_cancelled() {
                server.answered.store(true, Ordering::SeqCst);
                break;
            }
        }
        let mut answer = response(StatusCode::OK, format!("server {}", after.0).into());
        let id = HeaderValue::from_static("of the server");
        answer.headers_mut().insert(MCP_SESSION_ID, id);
        let mut state = lock(&self.state);
        if state.snapshot.is_some() {
            return Ok(Outcome::Answer(answer));
        }
        state.snapshot = Some(Snapshot("opened".into()));
        state.revision += 1;
        Ok(Outcome::Opened(answer))
    }

    async fn start_server(&self, order: StartOrder) -> Result<Arc<dyn Server>, SpawnError> {
        lock(&self.state).calls.push(ConversationCall::Start(order.number));
        let outcome = self.script.next().await?;
        let credential = order.caller.credentials.current().await.map_err(|error| match error {
            CredentialError::Terminal(error) => SpawnError::Credentials(error),
            CredentialError::Transient(error) => SpawnError::Unavailable(error),
        })?;
        let server = Arc::new(ScriptedServer {
            number: order.number,
            outcome,
            done: CancellationToken::new(),
            detached: CancellationToken::new(),
            answered: AtomicBool::new(false),
            expires_at: (credential.expires_at < far_future()).then_some(credential.expires_at),
        });
        lock(&self.state).started.push(Arc::clone(&server));
        Ok(server)
    }

    /// Takes the place of the current server from it.
    fn vacate(state: &mut State, server: ServerNumber) {
        if let Some(current) = state.current.take_if(|current| current.number == server) {
            current.detached.cancel();
        }
    }
}

impl Conversation for ScriptedConversation {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let empty = |status| response(status, Bytes::new());
            if request.method() == Method::DELETE {
                return if request.headers().contains_key("mcp-protocol-version") {
                    Outcome::Answer(empty(StatusCode::BAD_REQUEST))
                } else {
                    Outcome::End(empty(StatusCode::NO_CONTENT))
                };
            }
            if request.headers().contains_key("ends") {
                return Outcome::End(empty(StatusCode::NOT_FOUND));
            }
            self.post().await.unwrap_or_else(Outcome::Unserved)
        })
    }

    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Arc<dyn Server>, SpawnError>> {
        Box::pin(async move { self.start_server(order).await })
    }

    fn attach(&self, server: ServerNumber) {
        let mut state = lock(&self.state);
        assert!(state.closed.is_none(), "attached after the end of the session");
        state.calls.push(ConversationCall::Attach(server));
        let started = state.started.iter().find(|started| started.number == server);
        let started = Arc::clone(started.expect("the server was started"));
        assert!(state.current.as_ref().is_none_or(|current| current.number < server));
        if started.outcome == StartOutcome::Dies {
            started.done.cancel();
        }
        for waiting in mem::take(&mut state.waiting) {
            drop(waiting.send(Ok(Arc::clone(&started))));
        }
        state.current = Some(started);
    }

    fn refuse(&self, why: SessionError) {
        let mut state = lock(&self.state);
        state.calls.push(ConversationCall::Refuse(why));
        for waiting in mem::take(&mut state.waiting) {
            drop(waiting.send(Err(why)));
        }
    }

    fn retire_if_idle(&self, server: ServerNumber) -> bool {
        let idle = self.in_flight(server) == 0;
        if idle {
            let mut state = lock(&self.state);
            state.calls.push(ConversationCall::Retire(server));
            Self::vacate(&mut state, server);
        }
        idle
    }

    fn detach(&self, server: ServerNumber, reason: DetachReason) {
        let mut state = lock(&self.state);
        state.calls.push(ConversationCall::Detach(server, reason));
        Self::vacate(&mut state, server);
    }

    fn in_flight(&self, server: ServerNumber) -> usize {
        lock(&self.state).work.get(&server).map_or(0, |work| *work.borrow())
    }

    fn drained(&self, server: ServerNumber) -> BoxFuture<'static, ()> {
        let work = lock(&self.state).work.get(&server).map(watch::Sender::subscribe);
        Box::pin(async move {
            if let Some(mut work) = work {
                // An error means that the conversation is gone.
                drop(work.wait_for(|work| *work == 0).await);
            }
        })
    }

    fn revision(&self) -> u64 {
        lock(&self.state).revision
    }

    fn snapshot(&self) -> Option<Snapshot> {
        lock(&self.state).snapshot.clone()
    }

    fn is_blank(&self) -> bool {
        let state = lock(&self.state);
        state.current.is_none() && state.waiting.is_empty() && state.work.values().all(|work| *work.borrow() == 0)
    }

    fn close(&self, why: SessionError) {
        let mut state = lock(&self.state);
        assert!(state.closed.is_none(), "closed twice");
        state.calls.push(ConversationCall::Close(why));
        state.closed = Some(why);
        for waiting in mem::take(&mut state.waiting) {
            drop(waiting.send(Err(why)));
        }
    }
}

impl ScriptedServer {
    /// The number of the server in its session.
    pub fn number(&self) -> u64 {
        self.number.0
    }

    /// Dies, as a process that exits by itself.
    pub fn die(&self) {
        self.done.cancel();
    }

    /// Returns true after the server has died or was stopped.
    pub fn has_exited(&self) -> bool {
        self.done.is_cancelled()
    }
}

impl Server for ScriptedServer {
    fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            scheduling_point().await;
            self.die();
        })
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}
