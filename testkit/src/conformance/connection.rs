//! The connection to the client, and what the client has said on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// The levels of messages, the most verbose first.
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

/// The index of the level `info`.
const INFO: usize = 1;

pub(super) struct Connection {
    lines: mpsc::Sender<Value>,
    /// Every change is one operation, so a poisoned lock is still consistent; never held across an
    /// await.
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// What the client declared.
    pub(super) capabilities: Value,
    pub(super) subscriptions: BTreeSet<String>,
    /// The tags of the cancelled calls.
    pub(super) cancelled: Vec<String>,
    level: usize,
    /// Our requests that have no answer yet.
    open: BTreeMap<u64, oneshot::Sender<Value>>,
    next_id: u64,
}

/// Our request to the client, as long as it has no answer. Dropping it cancels it.
struct OpenRequest<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Connection {
    pub(super) fn new(lines: mpsc::Sender<Value>) -> Self {
        let state = Mutex::default();
        Self { lines, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to the client and waits for the result. Cancel safe: the request is
    /// cancelled.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<Value, String> {
        let (sender, answer) = oneshot::channel();
        let request = {
            let mut state = self.state();
            let id = state.next_id;
            state.next_id += 1;
            state.open.insert(id, sender);
            OpenRequest { connection: self, id }
        };
        self.send(json!({ "jsonrpc": "2.0", "id": request.id, "method": method, "params": params }));
        let mut answer = answer.await.map_err(|error| error.to_string())?;
        let result = answer["result"].take();
        if result.is_null() {
            return Err(answer["error"].to_string());
        }
        Ok(result)
    }

    /// Passes an answer of the client to the request that waits for it.
    pub(super) fn answered(&self, id: &Value, answer: Value) {
        let open = id.as_u64().and_then(|id| self.state().open.remove(&id));
        if let Some(open) = open {
            // The call may have ended.
            let _ = open.send(answer);
        }
    }

    pub(super) fn notify(&self, method: &str, params: &Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sets the level of messages; false if there is no such level.
    pub(super) fn set_level(&self, level: &Value) -> bool {
        let index = LEVELS.iter().position(|known| level == known);
        self.state().level = index.unwrap_or(INFO);
        index.is_some()
    }

    /// Sends a message at the level `info` if the client wants it.
    pub(super) fn log(&self, message: &str) {
        if self.state().level <= INFO {
            let params = json!({ "level": "info", "logger": "conformance", "data": message });
            self.notify("notifications/message", &params);
        }
    }

    pub(super) fn send(&self, message: Value) {
        // The writer ends when the client closes the pipe; the end of the input follows.
        let _ = self.lines.try_send(message);
    }
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        if self.connection.state().open.remove(&self.id).is_some() {
            let params = json!({ "requestId": self.id, "reason": "the call has ended" });
            self.connection.notify("notifications/cancelled", &params);
        }
    }
}
