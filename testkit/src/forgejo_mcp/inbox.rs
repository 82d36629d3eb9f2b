//! The messages that the double has received: a record for tests, the answers to its own requests,
//! and the subscriptions.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::sync::oneshot;

use super::log;

#[derive(Default)]
pub(super) struct Inbox {
    /// Every change is one operation, so a poisoned lock is still consistent; never held across an
    /// await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    record: Vec<Value>,
    /// Our requests that have no answer yet, oldest first.
    open: Vec<(Value, oneshot::Sender<Value>)>,
    subscriptions: BTreeSet<String>,
    last_id: u64,
}

impl Inbox {
    /// Records a message, with a line on standard error, and passes an answer on.
    pub(super) fn add(&self, message: &Value) {
        let method = message["method"].as_str();
        let (id, params) = (&message["id"], &message["params"]);
        let subject = [&params["requestId"], &params["uri"], id];
        let subject = subject.into_iter().find(|value| !value.is_null());
        let subject = subject.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        log::raw(&format!(
            "got {} pid={} {}\n",
            method.unwrap_or("answer"),
            std::process::id(),
            subject.unwrap_or_default()
        ));
        let mut state = self.state();
        state.record.push(message.clone());
        if method.is_none()
            && let Some(index) = state.open.iter().position(|(open, _)| open == id)
        {
            // The tool may have ended.
            let _ = state.open.remove(index).1.send(message.clone());
        }
    }

    pub(super) fn record(&self) -> Vec<Value> {
        self.state().record.clone()
    }

    /// The id of our next request.
    pub(super) fn next_id(&self) -> u64 {
        let mut state = self.state();
        state.last_id += 1;
        state.last_id
    }

    /// Waits for an answer with this id. If several requests have it, the oldest gets it.
    pub(super) fn answer_to(&self, id: &Value) -> oneshot::Receiver<Value> {
        let (sender, receiver) = oneshot::channel();
        self.state().open.push((id.clone(), sender));
        receiver
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
