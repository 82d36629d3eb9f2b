//! The client's side of a session while its children come and go: questions, streams, settings and
//! calls belong to the session, and each message reaches the child or the request that it is for.
//!
//! Children are replaced as in operation: a new sign-in rotates the sessions of its user, a kill is
//! a crash, and an idle session sleeps.

mod answers;
pub(crate) mod calls;
mod deaths;
mod dormant;
mod identity;
mod modern_child;
mod questions;
mod resumption;
mod settings;
mod starts;
mod work;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Client,
    broker::Process,
    client::{Event, EventStream},
};
use tokio::time::timeout;

use crate::harness::{Harness, SHORT_IDLE_TIMEOUT};

/// The deadline of an event that comes at once on a machine that is not busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The line of the log after which another child serves the session.
pub(crate) const ROTATED: &str = "session moved to a new backend";
pub(crate) const IDLE: &str = "session is dormant: it was idle";
pub(crate) const DIED: &str = "session is dormant: its backend died";
pub(crate) const CHILD_STARTED: &str = "child started";

/// A revision of the protocol that the broker does not support.
const UNSUPPORTED_VERSION: &str = "1999-01-01";

/// A harness with a session that sleeps, its settings added to those of a short idle timeout.
pub(crate) async fn with_dormant_session(settings: &[(&str, &str)]) -> (Harness, Client) {
    let settings = [&SHORT_IDLE_TIMEOUT[..], settings].concat();
    let harness = Harness::new(&settings).await;
    let alice = harness.in_session("alice").await;
    harness.broker.log().contains(IDLE).await;
    harness.wait_for_children(0).await;
    (harness, alice)
}

/// Rotates the sessions of a user once, and waits until new children serve them.
pub(crate) async fn rotate(harness: &Harness, login: &str) {
    let before = harness.broker.log().count(ROTATED);
    harness.signed_in(login).await;
    harness.broker.log().contains_times(ROTATED, before + 1).await;
}

/// Kills the only child, and waits until its session sleeps.
pub(crate) async fn kill_child(harness: &Harness) -> Process {
    let before = harness.broker.log().count(DIED);
    let child = harness.only_child();
    child.kill().unwrap();
    harness.broker.log().contains_times(DIED, before + 1).await;
    child
}

/// The next event of a stream; `None` is its end.
pub(crate) async fn next_event(stream: &mut EventStream) -> Option<Event> {
    timeout(SOON, stream.next())
        .await
        .expect("an event comes, or the stream ends")
        .unwrap()
}

/// The next message on a stream, which must go on.
pub(crate) async fn next_message(stream: &mut EventStream) -> Value {
    loop {
        let event = next_event(stream).await.expect("the stream goes on");
        if !event.data.is_empty() {
            return serde_json::from_str(&event.data).unwrap();
        }
    }
}

/// The JSON in the text of a tool's result.
#[track_caller]
pub(crate) fn text_of(response: &Value) -> Value {
    let text = response["result"]["content"][0]["text"].as_str();
    let text = text.unwrap_or_else(|| panic!("no text in {response}"));
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Calls a tool that answers with JSON.
pub(crate) async fn call(client: &Client, tool: &str, arguments: Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments });
    let (answer, id) = client.request("tools/call", params).await.unwrap();
    let response = answer.response_to(&id);
    text_of(response.unwrap_or_else(|| panic!("no response to {id}: {}", answer.text())))
}
