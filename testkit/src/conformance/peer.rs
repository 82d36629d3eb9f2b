//! The client as the server sees it: what it declared, subscribed to and cancelled, and a way to ask it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::wire;

/// The levels of RFC 5424 that MCP has, the least severe first.
const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// A handle on the client.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    lines: mpsc::Sender<String>,
    /// Each method leaves it whole, so a poisoned lock is too; never held across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What `initialize` declared.
    capabilities: Value,
    /// The least severe level to be sent, as an index of [`LEVELS`].
    level: usize,
    subscriptions: BTreeSet<String>,
    /// The id of the last question. Small numbers on purpose: clients number their requests alike.
    asked: u64,
    /// Who waits for the answer to a question.
    waiting: HashMap<u64, oneshot::Sender<Result<Value, Value>>>,
    /// Calls under way by the JSON of their id.
    running: HashMap<String, CancellationToken>,
    /// The tags of calls that were cancelled.
    cancelled: Vec<String>,
}

impl Peer {
    pub(super) fn new(lines: mpsc::Sender<String>) -> Self {
        Self {
            lines,
            state: Arc::default(),
        }
    }

    /// Writes a line. Once nobody reads any more the server ends by itself, so a failure needs no answer.
    pub(super) async fn send(&self, line: String) {
        let _ = self.lines.send(line).await;
    }

    pub(super) async fn notify(&self, method: &str, params: Value) {
        self.send(wire::notification(method, &params)).await;
    }

    /// Asks the client and waits for its answer.
    ///
    /// The error is what the tool then says: the client never declared the capability, or it answered with an error.
    pub(super) async fn ask(&self, capability: &str, method: &str, params: Value) -> Result<Value, String> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.state();
            if state.capabilities.get(capability).is_none() {
                return Err(format!("the client does not offer {capability}"));
            }
            state.asked += 1;
            let id = state.asked;
            state.waiting.insert(id, answer);
            id
        };
        self.send(wire::question(id, method, &params)).await;
        match answered.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(format!("the client answered with an error: {error}")),
            Err(_) => Err("the client never answered".to_owned()),
        }
    }

    /// Takes the answer to a question; one to no question is ignored.
    pub(super) fn answered(&self, id: &Value, outcome: Result<Value, Value>) {
        let waiting = id.as_u64().and_then(|id| self.state().waiting.remove(&id));
        if let Some(waiting) = waiting {
            // Who asked may have been cancelled.
            let _ = waiting.send(outcome);
        }
    }

    /// Logs to the client, unless it wants only what is more severe.
    pub(super) async fn log(&self, level: &str, data: &str) {
        let severity = LEVELS.iter().position(|&known| known == level);
        if severity >= Some(self.state().level) {
            let params = json!({ "level": level, "logger": "conformance", "data": data });
            self.notify("notifications/message", params).await;
        }
    }

    pub(super) fn declared(&self, capabilities: Value) {
        self.state().capabilities = capabilities;
    }

    /// Sets the least severe level; false if there is none of that name.
    pub(super) fn set_level(&self, level: &str) -> bool {
        let known = LEVELS.iter().position(|&known| known == level);
        if let Some(known) = known {
            self.state().level = known;
        }
        known.is_some()
    }

    pub(super) fn subscribe(&self, uri: &str) {
        self.state().subscriptions.insert(uri.to_owned());
    }

    pub(super) fn unsubscribe(&self, uri: &str) {
        self.state().subscriptions.remove(uri);
    }

    pub(super) fn is_subscribed(&self, uri: &str) -> bool {
        self.state().subscriptions.contains(uri)
    }

    /// Notes that a call runs, until [`finish`](Self::finish); the token fires when the client cancels it.
    pub(super) fn begin(&self, id: &Value) -> CancellationToken {
        let token = CancellationToken::new();
        self.state().running.insert(id.to_string(), token.clone());
        token
    }

    pub(super) fn finish(&self, id: &Value) {
        self.state().running.remove(&id.to_string());
    }

    pub(super) fn cancel(&self, id: &Value) {
        if let Some(token) = self.state().running.get(&id.to_string()) {
            token.cancel();
        }
    }

    /// Remembers the tag of a call that was cancelled.
    pub(super) fn note_cancelled(&self, tag: &str) {
        self.state().cancelled.push(tag.to_owned());
    }

    pub(super) fn cancelled(&self) -> Vec<String> {
        self.state().cancelled.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
