//! The host: a model, a user, two roots, and a list of notifications.
//!
//! With `QUESTIONS=1` the test is the user.

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

use crate::{NAME, emit, settings::Commands};

/// The longest time that a notification or a cancellation takes to arrive.
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// The user's answers, by the field of the form.
const ANSWERS: [(&str, &str); 4] = [
    ("username", "ada"),
    ("email", "ada@example.org"),
    ("name", "ada"),
    ("color", "blue"),
];

/// The handlers of the client.
#[derive(Debug)]
pub(crate) struct Host {
    session: usize,
    pub(crate) received: ReceivedNotifications,
    /// The commands that answer questions, if the client passes them on.
    questions: Option<Commands>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NotificationKind {
    Progress,
    Message,
    Updated,
    ListChanged,
}

/// The notifications that a client has received, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReceivedNotifications {
    notifications: Arc<Mutex<Vec<(NotificationKind, Value)>>>,
    /// The number of notifications.
    count: Arc<watch::Sender<usize>>,
}

impl ReceivedNotifications {
    /// The notifications of a kind.
    pub(crate) fn of_kind(&self, kind: NotificationKind) -> Vec<Value> {
        let notifications = self.notifications.lock().unwrap_or_else(PoisonError::into_inner);
        let matching = notifications.iter().filter(|(other, _)| *other == kind);
        matching.map(|(_, value)| value.clone()).collect()
    }

    /// Waits until there are `count` notifications of a kind.
    pub(crate) async fn until(&self, kind: NotificationKind, count: usize) -> Result<()> {
        let mut changes = self.count.subscribe();
        let enough = changes.wait_for(|_| self.of_kind(kind).len() >= count);
        timeout(ARRIVAL_TIMEOUT, enough)
            .await
            .with_context(|| format!("{count} notifications of the kind {kind:?} have not arrived"))??;
        Ok(())
    }

    pub(crate) fn clear(&self) {
        self.notifications
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn add(&self, kind: NotificationKind, value: Value) {
        self.notifications
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((kind, value));
        self.count.send_modify(|count| *count += 1);
    }
}

impl Host {
    pub(crate) fn new(session: usize, questions: Option<Commands>) -> Self {
        Self {
            session,
            received: ReceivedNotifications::default(),
            questions,
        }
    }

    /// Passes a question on, and waits for the answer.
    async fn pass_on(&self, params: &ElicitRequestParams, commands: &Commands) -> Result<Value> {
        let message = json!(params)["message"].clone();
        emit(&json!({ "event": "question", "session": self.session, "message": message }));
        let command = commands.next().await?.unwrap_or_default();
        let answer = command["answer"].as_str();
        let answer = answer.context("expected an answer command after a question event")?;
        Ok(json!({ "nonce": answer }))
    }
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let capabilities = json!({ "sampling": {}, "elicitation": {}, "roots": { "listChanged": true } });
        let capabilities = serde_json::from_value(capabilities).expect("the capabilities are valid");
        ClientConfig::new(capabilities, Implementation::new(NAME, "0.0.0"))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let params = json!(params);
        let content = &params["messages"][0]["content"];
        // The content is a block or a list of blocks.
        let prompt = content.get(0).unwrap_or(content)["text"].as_str().unwrap_or_default();
        let result = json!({
            "role": "assistant",
            "content": { "type": "text", "text": format!("sampled: {prompt}") },
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
        params: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let content = match &self.questions {
            None => {
                let params = json!(params);
                let asked = |field: &str| !params["requestedSchema"]["properties"][field].is_null();
                let answers = ANSWERS.into_iter().filter(|(field, _)| asked(field));
                answers
                    .map(|(field, answer)| (field.to_owned(), json!(answer)))
                    .collect()
            }
            Some(commands) => {
                let answer = self.pass_on(&params, commands).await;
                answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?
            }
        };
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.received
            .add(NotificationKind::Progress, json!(params.progress.round() as i64));
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.received.add(NotificationKind::Message, params.data);
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.received.add(NotificationKind::Updated, json!(params.uri));
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.received.add(NotificationKind::ListChanged, Value::Null);
    }
}
