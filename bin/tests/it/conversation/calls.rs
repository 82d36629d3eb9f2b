//! A call whose answer is read event by event, and the questions in it.

use serde_json::{Value, json};
use testkit::{Client, client::EventStream};

use super::{next_event, text_of};
use crate::harness::messages::tool_call_request;

/// A call whose answer has become a stream.
pub(crate) struct OpenCall {
    id: Value,
    stream: EventStream,
    last_event_id: Option<String>,
}

/// A question of the server that the client has read.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) id: Value,
    pub(crate) text: String,
}

impl OpenCall {
    /// Calls a tool, and returns once the answer has become a stream, if only because it takes
    /// long.
    pub(crate) async fn start(client: &Client, id: impl Into<Value>, tool: &str, arguments: Value) -> Self {
        let id = id.into();
        Self::post(client, &id, tool_call_request(id.clone(), tool, &arguments)).await
    }

    /// Posts the call with this id.
    pub(crate) async fn post(client: &Client, id: &Value, message: String) -> Self {
        Self {
            id: id.clone(),
            stream: client.post_for_stream(message).await.unwrap(),
            last_event_id: None,
        }
    }

    /// Calls a tool that asks the user, with this id for its question.
    pub(crate) async fn ask(client: &Client, id: impl Into<Value>, question_id: &str, question: &str) -> Self {
        let arguments = json!({ "id": question_id, "question": question });
        Self::start(client, id, "test_ask", arguments).await
    }

    pub(crate) fn id(&self) -> &Value {
        &self.id
    }

    /// The next message of the stream.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let event = next_event(&mut self.stream).await.expect("the stream goes on");
            self.last_event_id = event.id.or(self.last_event_id.take());
            if !event.data.is_empty() {
                return serde_json::from_str(&event.data).unwrap();
            }
        }
    }

    /// The next message, which must be a question.
    pub(crate) async fn question(&mut self) -> Question {
        let message = self.next().await;
        assert_eq!(message["method"], "elicitation/create", "{message}");
        Question {
            id: message["id"].clone(),
            text: message["params"]["message"].as_str().unwrap().to_owned(),
        }
    }

    /// Reads to the response. Nothing else may come before it.
    pub(crate) async fn response(&mut self) -> Value {
        let message = self.next().await;
        assert!(
            message["id"] == self.id && message.get("method").is_none(),
            "this is no response to {}: {message}",
            self.id
        );
        message
    }

    /// Reads to the end of the stream after its response.
    pub(crate) async fn end(&mut self) {
        assert_eq!(next_event(&mut self.stream).await, None);
    }

    /// Goes away, before the first message if none was read. Returns the id of the last event.
    pub(crate) async fn leave(mut self) -> String {
        while self.last_event_id.is_none() {
            let event = next_event(&mut self.stream).await.expect("the stream goes on");
            assert_eq!(event.data, "", "a stream begins with an event without data");
            self.last_event_id = event.id;
        }
        self.last_event_id.unwrap()
    }
}

/// Accepts a question; the nonce says which answer it is. The broker takes every answer.
pub(crate) async fn accept(client: &Client, question: &Question, nonce: &str) {
    let result = json!({ "action": "accept", "content": { "nonce": nonce } });
    let answer = json!({ "jsonrpc": "2.0", "id": question.id, "result": result });
    assert_eq!(client.post(answer.to_string()).await.unwrap().status, 202);
}

/// Cancels a request of the client.
pub(crate) async fn cancel(client: &Client, id: &Value) {
    let params = json!({ "requestId": id });
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    assert_eq!(client.post(notification.to_string()).await.unwrap().status, 202);
}

/// The nonces of the answers that the child got to the questions of a call.
pub(crate) fn nonces(response: &Value) -> Vec<Value> {
    let text = text_of(response);
    let answers = text["answers"].as_array().unwrap().iter();
    answers
        .map(|answer| answer["result"]["content"]["nonce"].clone())
        .collect()
}
