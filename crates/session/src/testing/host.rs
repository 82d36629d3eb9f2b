//! A host of scripted conversations, whose servers start as scripted, and which routes requests as
//! they ask.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use tokio::sync::watch;

use super::{ScriptedConversation, backend::response, lock, scheduling_point};
use crate::ports::{
    BoxError, Caller, Conversation, ConversationInfo, Host, Route, SessionHandle, Snapshot, SpawnError,
};

/// The header that says where a request belongs.
const ROUTE: &str = "route";

/// The outcome of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// The server answers every request.
    Ready,
    /// The server never answers.
    Silent,
    /// The server dies when it is attached.
    Dies,
    /// [`SpawnError::Failed`].
    Failed,
    /// [`SpawnError::Unfit`].
    Unfit,
    /// [`SpawnError::Missing`].
    Missing,
    /// The start panics.
    Panics,
}

/// Makes [`ScriptedConversation`]s.
///
/// Requests belong where they say ([`route_by_header`]).
#[derive(Debug)]
pub struct ScriptedHost {
    script: Arc<Script>,
    conversations: Mutex<Vec<Weak<ScriptedConversation>>>,
}

/// The script of all conversations of a host.
#[derive(Debug)]
pub(super) struct Script {
    /// The outcomes of the next starts. Later ones are ready.
    outcomes: Mutex<VecDeque<StartOutcome>>,
    held: watch::Sender<bool>,
    starts: AtomicUsize,
}

impl ScriptedHost {
    /// All servers start at once and are ready.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let script = Script {
            outcomes: Mutex::default(),
            held: watch::Sender::new(false),
            starts: AtomicUsize::new(0),
        };
        Arc::new(Self {
            script: Arc::new(script),
            conversations: Mutex::default(),
        })
    }

    /// Sets the outcomes of the next starts.
    pub fn script(&self, outcomes: impl IntoIterator<Item = StartOutcome>) {
        lock(&self.script.outcomes).extend(outcomes);
    }

    /// Holds all starts until it is called with false.
    pub fn hold_starts(&self, hold: bool) {
        self.script.held.send_replace(hold);
    }

    /// The number of starts so far.
    pub fn start_count(&self) -> usize {
        self.script.starts.load(Ordering::SeqCst)
    }

    /// The number of conversations so far.
    pub fn conversation_count(&self) -> usize {
        lock(&self.conversations).len()
    }

    /// The conversation that was made last. It is not put down while a caller has it.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn last_conversation(&self) -> Arc<ScriptedConversation> {
        let last = lock(&self.conversations).last().and_then(Weak::upgrade);
        last.expect("a conversation")
    }
}

impl Host for ScriptedHost {
    fn conversation(
        &self,
        _info: ConversationInfo,
        handle: SessionHandle,
        snapshot: Option<Snapshot>,
    ) -> Result<Arc<dyn Conversation>, BoxError> {
        if snapshot.as_ref().is_some_and(|snapshot| snapshot.0 == "unusable") {
            return Err("SECRET-REASON".into());
        }
        let conversation = Arc::new(ScriptedConversation::new(&self.script, handle, snapshot));
        lock(&self.conversations).push(Arc::downgrade(&conversation));
        Ok(conversation)
    }

    fn route(&self, request: &mut Request<Bytes>, _caller: &Caller) -> Route {
        route_by_header(request)
    }

    fn initial_snapshot(&self, request: &Request<Bytes>) -> Option<Snapshot> {
        initial_snapshot_by_header(request)
    }

    fn ignores_session_id(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(ROUTE)
    }
}

/// The place of a request without a session id, as its header `route` says: `last` or
/// `last-passive` ([`Route::LastInitialize`]), `reply`, `tagged TAG ELSE`, and any other text is
/// the name of an implicit session. Without that header it is [`Route::Open`].
///
/// # Panics
///
/// If the header is malformed.
pub fn route_by_header(request: &Request<Bytes>) -> Route {
    let route = request.headers().get(ROUTE);
    route.map_or(Route::Open, |route| parse_route(route.to_str().expect("text")))
}

/// The snapshot of an implicit session for a request that [`route_by_header`] has seen: its name,
/// or `default` for the last `initialize`.
///
/// # Panics
///
/// If the header is malformed.
pub fn initial_snapshot_by_header(request: &Request<Bytes>) -> Option<Snapshot> {
    let route = request.headers().get(ROUTE)?.to_str().expect("text");
    // The last word, behind any tags.
    let name = route.rsplit(' ').next()?;
    let text = if name.starts_with("last") { "default" } else { name };
    Some(Snapshot(Bytes::copy_from_slice(text.as_bytes())))
}

fn parse_route(text: &str) -> Route {
    if let Some(tagged) = text.strip_prefix("tagged ") {
        let (tag, otherwise) = tagged.split_once(' ').expect("another route");
        return Route::Tagged {
            tag: tag.into(),
            otherwise: Box::new(parse_route(otherwise)),
        };
    }
    match text {
        "last" | "last-passive" => Route::LastInitialize { opens: text == "last" },
        "reply" => Route::Reply(response(StatusCode::IM_A_TEAPOT, Bytes::new())),
        name => {
            let mut bytes = [0; 16];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            Route::Implicit { name: bytes }
        }
    }
}

impl Script {
    /// The outcome of the next start, unless it is an error.
    pub(super) async fn next(&self) -> Result<StartOutcome, SpawnError> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        scheduling_point().await;
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.expect("the host outlives its starts");
        let outcome = lock(&self.outcomes).pop_front();
        let cause = || BoxError::from("SECRET-REASON");
        match outcome.unwrap_or(StartOutcome::Ready) {
            StartOutcome::Failed => Err(SpawnError::Failed(cause())),
            StartOutcome::Unfit => Err(SpawnError::Unfit(cause())),
            StartOutcome::Missing => Err(SpawnError::Missing(cause())),
            StartOutcome::Panics => panic!("as the test says"),
            outcome @ (StartOutcome::Ready | StartOutcome::Silent | StartOutcome::Dies) => Ok(outcome),
        }
    }
}
