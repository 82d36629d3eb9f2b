//! Tasks of 2025-11-25: calls that their client polls.
//!
//! A task lives as long as the process, whatever `ttl` its client asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Failure, INTERNAL_ERROR, Outcome, connection::Connection};

const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// The time between two polls that the server advises, in milliseconds.
const POLL_INTERVAL: u64 = 100;

/// The `ttl` of a task whose client asked for none, in milliseconds.
const DEFAULT_TTL: u64 = 60_000;

pub(super) struct Tasks {
    connection: Arc<Connection>,
    started: Instant,
    /// Every change is one operation, so a poisoned lock is still consistent; never held across an
    /// await.
    tasks: Mutex<BTreeMap<String, Task>>,
}

struct Task {
    status: &'static str,
    created: String,
    updated: String,
    ttl: u64,
    /// Questions without an answer.
    questions: usize,
    /// Cancelled as soon as the task has an outcome.
    finished: CancellationToken,
    outcome: Option<Outcome>,
}

/// A question of a task without an answer.
pub(super) struct OpenQuestion<'a> {
    tasks: &'a Tasks,
    id: &'a str,
}

impl Tasks {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            started: Instant::now(),
            tasks: Mutex::default(),
        }
    }

    /// Adds a task for a call with these parameters. Returns its id, and a token that is cancelled
    /// at its end.
    pub(super) fn add(&self, params: &Value) -> (String, CancellationToken) {
        let finished = CancellationToken::new();
        let task = Task {
            status: "working",
            created: self.now(),
            updated: self.now(),
            ttl: params["task"]["ttl"].as_u64().unwrap_or(DEFAULT_TTL),
            questions: 0,
            finished: finished.clone(),
            outcome: None,
        };
        let mut tasks = self.lock();
        let id = format!("task-{}", tasks.len() + 1);
        tasks.insert(id.clone(), task);
        (id, finished)
    }

    pub(super) fn list(&self) -> Value {
        let tasks = self.lock();
        let tasks: Vec<Value> = tasks.iter().map(|(id, task)| task.describe(id)).collect();
        json!({ "tasks": tasks })
    }

    pub(super) fn get(&self, id: &str) -> Outcome {
        self.with(id, |task| task.describe(id))
    }

    /// Waits for the end of a task, and returns the outcome of its call. Cancel safe.
    pub(super) async fn result(&self, id: &str) -> Outcome {
        let finished = self.with(id, |task| task.finished.clone())?;
        finished.cancelled().await;
        let outcome = self.with(id, |task| task.outcome.clone())?;
        let mut result = outcome.unwrap_or_else(|| Ok(json!({})))?;
        result["_meta"][RELATED_TASK] = json!({ "taskId": id });
        Ok(result)
    }

    pub(super) fn cancel(&self, id: &str) -> Outcome {
        if self.with(id, |task| task.outcome.is_some())? {
            return Err(Failure::params(format!("{id} has ended")));
        }
        let outcome = Err(Failure::Error(INTERNAL_ERROR, "the task was cancelled".to_owned()));
        self.finish(id, "cancelled", outcome);
        self.get(id)
    }

    pub(super) fn finish(&self, id: &str, status: &'static str, outcome: Outcome) {
        self.change(id, |task| {
            task.status = status;
            task.outcome = Some(outcome);
            task.finished.cancel();
        });
    }

    /// Marks a question as one of a task, which waits for its client until the returned value is
    /// dropped.
    pub(super) fn wait_for_input<'a>(&'a self, id: &'a str, question: &mut Value) -> OpenQuestion<'a> {
        question["_meta"][RELATED_TASK] = json!({ "taskId": id });
        self.change(id, |task| {
            task.questions += 1;
            task.status = "input_required";
        });
        OpenQuestion { tasks: self, id }
    }

    /// Changes a task that has not ended, and notifies the client if it has another status now.
    fn change(&self, id: &str, change: impl FnOnce(&mut Task)) {
        let now = self.now();
        let changed = {
            let mut tasks = self.lock();
            let task = tasks.get_mut(id).filter(|task| task.outcome.is_none());
            task.and_then(|task| {
                let before = task.status;
                change(task);
                task.updated = now;
                (task.status != before).then(|| task.describe(id))
            })
        };
        if let Some(task) = changed {
            self.connection.notify("notifications/tasks/status", &task);
        }
    }

    fn with<T>(&self, id: &str, read: impl FnOnce(&Task) -> T) -> Result<T, Failure> {
        let tasks = self.lock();
        let task = tasks.get(id).map(read);
        task.ok_or_else(|| Failure::params(format!("no task {id:?}")))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the start, as a date.
    fn now(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        format!("2026-01-01T{hours:02}:{minutes:02}:{:02}Z", seconds % 60)
    }
}

impl Task {
    fn describe(&self, id: &str) -> Value {
        json!({
            "taskId": id,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttl": self.ttl,
            "pollInterval": POLL_INTERVAL,
        })
    }
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.tasks.change(self.id, |task| {
            task.questions -= 1;
            if task.questions == 0 {
                task.status = "working";
            }
        });
    }
}
