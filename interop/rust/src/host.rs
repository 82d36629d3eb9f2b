//! What a client brings to the tour: a model, a user, two roots, and an ear.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult,
        ElicitationAction, Implementation, ListRootsResult, LoggingMessageNotificationParam, ProgressNotificationParam,
        ResourceUpdatedNotificationParam, Root,
    },
    service::{NotificationContext, RequestContext},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::NAME;

/// How long something may take to arrive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The host of the client.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) heard: Heard,
}

/// What came of a kind of notification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Progress,
    Message,
    Updated,
    ListChanged,
}

/// The notifications that a client was sent, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    messages: Arc<Mutex<Vec<(Kind, Value)>>>,
    /// How many there are.
    count: Arc<watch::Sender<usize>>,
}

impl Heard {
    /// Those of a kind.
    pub(crate) fn of(&self, kind: Kind) -> Vec<Value> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = messages.iter().filter(|(of, _)| *of == kind);
        of_kind.map(|(_, value)| value.clone()).collect()
    }

    /// Waits until there are `count` of a kind.
    pub(crate) async fn until(&self, kind: Kind, count: usize) -> Result<()> {
        let mut news = self.count.subscribe();
        let enough = news.wait_for(|_| self.of(kind).len() >= count);
        timeout(PATIENCE, enough)
            .await
            .with_context(|| format!("{count} times {kind:?} have not come"))??;
        Ok(())
    }

    fn add(&self, kind: Kind, value: Value) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((kind, value));
        self.count.send_modify(|count| *count += 1);
    }
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let capabilities = json!({ "sampling": {}, "elicitation": {}, "roots": { "listChanged": true } });
        let capabilities = serde_json::from_value(capabilities).expect("these are capabilities");
        ClientConfig::new(capabilities, Implementation::new(NAME, "0.0.0"))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let params = json!(params);
        let content = &params["messages"][0]["content"];
        // One block of content, or a list of them.
        let asked = content.get(0).unwrap_or(content)["text"].as_str().unwrap_or_default();
        let result = json!({
            "role": "assistant",
            "content": { "type": "text", "text": format!("sampled: {asked}") },
            "model": NAME,
            "stopReason": "endTurn",
        });
        serde_json::from_value(result).map_err(|error| ErrorData::internal_error(error.to_string(), None))
    }

    async fn list_roots(&self, _context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![
            Root::new("file:///one"),
            Root::new("file:///two"),
        ]))
    }

    async fn create_elicitation(
        &self,
        _params: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let said = json!({ "username": "ada", "email": "ada@example.org" });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(said))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.heard.add(Kind::Progress, json!(params.progress.round() as i64));
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.heard.add(Kind::Message, params.data);
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.heard.add(Kind::Updated, json!(params.uri));
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.heard.add(Kind::ListChanged, Value::Null);
    }
}
