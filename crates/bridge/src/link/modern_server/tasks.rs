//! Calls that the server has made a task of: the result is fetched by polling, and the machine gets
//! it as the plain answer.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant};

use super::{
    INTERNAL, INVALID_RESPONSE, ModernServer, SentRequest,
    calls::{CallStage, TaskHandle},
    results,
};
use crate::jsonrpc::{self, json, object::Object};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// The time that a server has to answer about a task.
const POLL_TIMEOUT: Duration = Duration::from_secs(30);

impl ModernServer {
    /// The server has made a task of a call.
    pub(super) fn task_created(&mut self, now: Instant, number: u64, result: &Object<'_>) {
        let id = result.get("taskId").filter(|id| json::string(id).is_some());
        let (Some(call), Some(id)) = (self.calls.get_mut(&number), id) else {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        };
        if &*call.method != "tools/call" {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        }
        call.task = Some(TaskHandle {
            id: id.into(),
            interval: interval(result),
            asked: BTreeSet::new(),
        });
        self.poll_later(now, number);
    }

    /// Asks for the task of a call.
    pub(super) fn poll(&mut self, now: Instant, number: u64) {
        let id = self.next_id();
        let task = self.calls.get(&number).and_then(|call| call.task.as_ref());
        let Some(params) = task.map(|task| format!(r#"{{"taskId":{}}}"#, task.id)) else {
            return;
        };
        let line = self.request(id, "tasks/get", &params, &[]).unwrap_or_default();
        if self.send_request(id, SentRequest::TaskPoll(number), line) {
            if let Some(call) = self.calls.get_mut(&number) {
                call.stage = CallStage::Polling(Some(id));
            }
            self.set_deadline(number, now + POLL_TIMEOUT);
        } else {
            self.fail(number, jsonrpc::UNAVAILABLE, "the MCP server does not read");
        }
    }

    /// The server has answered about the task of a call.
    pub(super) fn polled(&mut self, now: Instant, number: u64, error: bool, outcome: &str) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.stage = CallStage::Polling(None);
        if error {
            let response = results::error(&number.to_string(), "tasks/get", outcome);
            self.finish(number);
            self.replies.push(response);
            return;
        }
        let Some(mut result) = Object::parse(outcome) else {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        };
        match result.get("status").and_then(json::string).as_deref() {
            Some("working") => {
                if let Some(task) = &mut call.task {
                    task.interval = interval(&result);
                }
                self.poll_later(now, number);
            }
            Some("input_required") => self.task_asks(now, number, &result),
            Some("completed") => {
                let inner = result.take("result").unwrap_or_default();
                match Object::parse(&inner) {
                    Some(inner) => self.complete(number, inner),
                    None => self.fail(number, INTERNAL, INVALID_RESPONSE),
                }
            }
            Some("failed") => {
                let error = results::error(&number.to_string(), "tools/call", result.get("error").unwrap_or("{}"));
                self.finish(number);
                self.replies.push(error);
            }
            Some("cancelled") => self.fail(number, jsonrpc::UNAVAILABLE, "the MCP server has cancelled the task"),
            _other => self.fail(number, INTERNAL, INVALID_RESPONSE),
        }
    }

    /// Gives the server the answers (JSON text) that its task waits for.
    pub(super) fn update_task(&mut self, now: Instant, number: u64, answers: &str) {
        let id = self.next_id();
        let task = self.calls.get(&number).and_then(|call| call.task.as_ref());
        let Some(task_id) = task.map(|task| task.id.clone()) else {
            return;
        };
        let params = format!(r#"{{"taskId":{task_id}}}"#);
        let line = self.request(id, "tasks/update", &params, &[("inputResponses", answers)]);
        if self.send_request(id, SentRequest::Ignored, line.unwrap_or_default()) {
            self.poll_later(now, number);
        } else {
            self.fail(number, jsonrpc::UNAVAILABLE, "the MCP server does not read");
        }
    }

    pub(super) fn cancel_task(&mut self, task: &TaskHandle) {
        let id = self.next_id();
        let params = format!(r#"{{"taskId":{}}}"#, task.id);
        let line = self.request(id, "tasks/cancel", &params, &[]).unwrap_or_default();
        self.send_request(id, SentRequest::Ignored, line);
    }

    fn poll_later(&mut self, now: Instant, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Some(task) = &call.task else { return };
        let at = now + task.interval;
        call.stage = CallStage::Polling(None);
        self.set_deadline(number, at);
    }

    /// The task has questions. Those that were asked before are on their way.
    fn task_asks(&mut self, now: Instant, number: u64, result: &Object<'_>) {
        let inputs = result.get("inputRequests").and_then(Object::parse);
        let task = self.calls.get_mut(&number).and_then(|call| call.task.as_mut());
        let (Some(mut inputs), Some(task)) = (inputs, task) else {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        };
        inputs.retain(|key| !task.asked.contains(key));
        if inputs.is_empty() {
            self.poll_later(now, number);
            return;
        }
        task.asked.extend(inputs.iter().map(|(key, _)| Box::from(key)));
        if self.begin_round(number) {
            self.ask(number, None, &inputs.to_string());
        }
    }
}

/// The time between two polls that a server wishes, within limits.
fn interval(task: &Object<'_>) -> Duration {
    let wished = task.get("pollIntervalMs").and_then(|wished| wished.parse().ok());
    wished
        .map_or(DEFAULT_INTERVAL, Duration::from_millis)
        .clamp(MIN_INTERVAL, MAX_INTERVAL)
}
