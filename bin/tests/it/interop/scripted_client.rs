//! A client of `interop/` that keeps running and calls on command.

use serde_json::json;
use testkit::Browser;
use tokio::time::timeout;

use super::sdk_client::{ClientProcess, Event, RUN_TIMEOUT, Run, client_id_in};

/// A client of `interop/` that waits for a command after each round of calls.
#[derive(Debug)]
pub(super) struct ScriptedClient {
    process: ClientProcess,
    /// The client id of each authorization request.
    authorizations: Vec<String>,
    /// The number of sessions that it has opened.
    pub(super) sessions: usize,
}

impl ScriptedClient {
    pub(super) fn start(run: Run) -> Self {
        Self {
            process: run.interactive().spawn(),
            authorizations: Vec::new(),
            sessions: 0,
        }
    }

    /// Starts a round of calls.
    pub(super) async fn start_calls(&mut self) {
        self.process.send(&json!({ "call": true })).await;
    }

    /// The texts of the calls up to the next `ready`.
    pub(super) async fn until_ready(&mut self) -> Vec<String> {
        timeout(
            RUN_TIMEOUT,
            self.texts_until_event(|event| matches!(event, Event::Ready)),
        )
        .await
        .expect("the client does not get ready")
    }

    /// Ends it, and returns the client id of each authorization request.
    pub(super) async fn end(mut self) -> Vec<String> {
        self.process.send(&json!({ "end": true })).await;
        timeout(
            RUN_TIMEOUT,
            self.texts_until_event(|event| matches!(event, Event::Done)),
        )
        .await
        .expect("the client does not end");
        assert!(self.process.exited().await.success());
        self.authorizations
    }

    async fn texts_until_event(&mut self, is_last: impl Fn(&Event) -> bool) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let event = self.process.event().await;
            if is_last(&event) {
                return texts;
            }
            match event {
                Event::Authorize { url } => {
                    self.authorizations.push(client_id_in(&url));
                    self.process.sign_in(&mut Browser::new(), &url).await;
                }
                Event::Session { .. } => self.sessions += 1,
                Event::Result { text, is_error, .. } => {
                    let text = text.unwrap_or_default();
                    assert!(!is_error, "{text}");
                    texts.push(text);
                }
                Event::Error { message } => panic!("the client failed: {message}"),
                Event::Done => panic!("the client has ended"),
                Event::Tools { .. }
                | Event::Feature { .. }
                | Event::Question { .. }
                | Event::Ready
                | Event::Call(_)
                | Event::Notification { .. } => {}
            }
        }
    }
}
