//! A call of a tool or a prompt, and how it reaches the client.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Failure, Outcome, connection::Connection, tasks::Tasks};

/// The field of a question's `_meta` that names its key for clients of 2026-07-28.
const INPUT_KEY: &str = "forgejo-mcp-broker/input-key";

pub(super) struct Call {
    pub(super) connection: Arc<Connection>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) params: Value,
    /// The task that the call has become.
    pub(super) task: Option<String>,
}

impl Call {
    /// The text of an argument.
    pub(super) fn argument(&self, name: &str) -> Result<&str, Failure> {
        let argument = self.params["arguments"][name].as_str();
        argument.ok_or_else(|| Failure::params(format!("{name} must be a string")))
    }

    /// Sends a request to the client and waits for the result. `key` is the key that the suite
    /// expects the question to have; empty means none.
    pub(super) async fn ask(&self, key: &str, method: &str, mut params: Value) -> Outcome {
        if !key.is_empty() {
            params["_meta"][INPUT_KEY] = json!(key);
        }
        let task = self.task.as_deref();
        let waiting = task.map(|task| self.tasks.wait_for_input(task, &mut params));
        let result = self.connection.ask(method, params).await;
        drop(waiting);
        result.map_err(|error| Failure::Tool(format!("the client answered with an error: {error}")))
    }

    pub(super) async fn elicit(&self, key: &str, message: &str, schema: Value) -> Outcome {
        let params = json!({ "message": message, "requestedSchema": schema });
        self.ask(key, "elicitation/create", params).await
    }

    /// Asks the client's model and returns the text of its message.
    pub(super) async fn sample(&self, key: &str, prompt: &str) -> Result<String, Failure> {
        let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
        let params = json!({ "messages": [message], "maxTokens": 100 });
        let result = self.ask(key, "sampling/createMessage", params).await?;
        let text = result["content"]["text"].as_str().unwrap_or("no text");
        Ok(text.to_owned())
    }

    /// Asks for the client's roots and returns their URIs.
    pub(super) async fn roots(&self, key: &str) -> Result<String, Failure> {
        let result = self.ask(key, "roots/list", json!({})).await?;
        let roots = result["roots"].as_array().into_iter().flatten();
        let uris: Vec<&str> = roots.filter_map(|root| root["uri"].as_str()).collect();
        Ok(uris.join(" "))
    }

    /// Fails unless the client declared a capability.
    pub(super) fn require(&self, name: &str) -> Result<(), Failure> {
        let declared = !self.connection.state().capabilities[name].is_null();
        declared
            .then_some(())
            .ok_or_else(|| Failure::Tool(format!("the client does not offer {name}")))
    }

    /// Reports progress if the client sent a token for it.
    pub(super) fn report_progress(&self, progress: u32, total: u32) {
        let token = &self.params["_meta"]["progressToken"];
        if !token.is_null() {
            let params = json!({ "progressToken": token, "progress": progress, "total": total });
            self.connection.notify("notifications/progress", &params);
        }
    }
}
