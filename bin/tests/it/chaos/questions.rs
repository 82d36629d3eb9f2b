//! Calls in which a child asks the user.
//!
//! The question is the mark of the call, the client repeats it as the answer, and the child reports
//! the answer that it got. Each child numbers its questions from 1. Between a question and its
//! answer the session often gets another child. A question of one call may come on the stream of
//! another call of the session.
//!
//! Some clients leave the stream of the call at the question, and each client resumes a stream that
//! breaks.

use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::{
    Client,
    client::{ClientError, EventStream, Posted},
};
use tokio::time::{sleep, timeout};

use super::oracle::{CallOutcome, NO_RESPONSE, Stamp};
use crate::harness::messages::tool_call_request;

/// The time that a user takes for an answer, at most, in milliseconds. A child that has been
/// replaced keeps its token for about a second.
pub(super) const LONGEST_THOUGHT: u64 = 400;
/// Longer than a restart of the broker takes.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The behavior of a client at a question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// It keeps reading the stream.
    Stays,
    /// It closes the stream, answers, and resumes it.
    Leaves,
}

/// A call and its stream.
struct Asking<'a> {
    client: &'a Client,
    mark: &'a str,
    last_event_id: Option<String>,
}

/// Makes a call of `test_stamp` with a question.
pub(super) async fn call(
    client: &Client,
    mark: &str,
    arguments: &Value,
    reading: Reading,
    rng: &mut Rng,
) -> CallOutcome {
    let mut asking = Asking {
        client,
        mark,
        last_event_id: None,
    };
    let response = timeout(RESPONSE_TIMEOUT, asking.response(arguments, reading, rng)).await;
    let response = match response {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return CallOutcome::Failed(error),
        Err(_elapsed) => return CallOutcome::Failed(format!("{NO_RESPONSE} for {RESPONSE_TIMEOUT:?}")),
    };
    let stamp = response["result"]["content"][0]["text"].as_str();
    match stamp.and_then(Stamp::parse) {
        Some(stamp) => CallOutcome::Answered(stamp),
        None => CallOutcome::Failed(response.to_string()),
    }
}

impl Asking<'_> {
    /// The response to the call, on whichever stream it comes.
    async fn response(&mut self, arguments: &Value, reading: Reading, rng: &mut Rng) -> Result<Value, String> {
        let request = tool_call_request(self.mark, "test_stamp", arguments);
        let posted = self.client.post_and_read(request).await;
        let mut stream = match posted.map_err(|error| format!("{error:?}"))? {
            Posted::Stream(stream) => Some(stream),
            // The question has come on another stream, or there was none.
            Posted::Answer(answer) => {
                let response = answer.response_to(&json!(self.mark)).cloned();
                return response.ok_or_else(|| format!("{NO_RESPONSE}: {}: {}", answer.status, answer.text()));
            }
        };
        loop {
            let Some(message) = self.next(&mut stream).await? else {
                stream = self.resume(rng).await?;
                continue;
            };
            if message["id"] == self.mark && message.get("method").is_none() {
                return Ok(message);
            }
            match message["method"].as_str() {
                Some("elicitation/create") => {
                    let question = message["params"]["message"].as_str().unwrap_or_default();
                    if session_of(question) != session_of(self.mark) {
                        return Err(format!("a question of another session: {message}"));
                    }
                    if matches!(reading, Reading::Leaves) {
                        stream = None;
                    }
                    sleep(Duration::from_millis(rng.u64(..LONGEST_THOUGHT))).await;
                    self.answer(&message["id"], question).await?;
                }
                // Its child has died; the response says so.
                Some("notifications/cancelled") => {}
                _ => return Err(format!("an unexpected message: {message}")),
            }
        }
    }

    /// The next message; `None` if there is no stream, or it has ended.
    async fn next(&mut self, stream: &mut Option<EventStream>) -> Result<Option<Value>, String> {
        let Some(stream) = stream else { return Ok(None) };
        // An error is a broken stream, as with a stopping broker.
        while let Ok(Some(event)) = stream.next().await {
            self.last_event_id = event.id.or(self.last_event_id.take());
            if !event.data.is_empty() {
                return serde_json::from_str(&event.data)
                    .map(Some)
                    .map_err(|error| format!("{error}: {}", event.data));
            }
        }
        Ok(None)
    }

    /// Resumes the stream; `None` if the broker is stopping, and it has to be tried again.
    async fn resume(&self, rng: &mut Rng) -> Result<Option<EventStream>, String> {
        let Some(last_event_id) = &self.last_event_id else {
            return Err("the stream broke before its first event".to_owned());
        };
        sleep(Duration::from_millis(rng.u64(..100))).await;
        match self.client.listen(Some(last_event_id)).await {
            Ok(stream) => Ok(Some(stream)),
            Err(ClientError::Refused { status, body }) if status != StatusCode::SERVICE_UNAVAILABLE => {
                Err(format!("the stream cannot be resumed: {status}: {body}"))
            }
            Err(_) => Ok(None),
        }
    }

    async fn answer(&self, id: &Value, question: &str) -> Result<(), String> {
        let result = json!({ "action": "accept", "content": { "nonce": question } });
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
        match self.client.post(answer).await {
            Ok(answer) if answer.status == 202 => Ok(()),
            Ok(answer) => Err(format!(
                "the answer to a question got {}: {}",
                answer.status,
                answer.text()
            )),
            // The broker stopped, and the question with it.
            Err(_) => Ok(()),
        }
    }
}

/// The name of the session in a mark.
fn session_of(mark: &str) -> Option<&str> {
    mark.rsplit_once('.').map(|(session, _)| session)
}
