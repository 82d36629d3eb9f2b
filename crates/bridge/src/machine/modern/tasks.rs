//! Calls that run on as tasks: the extension `io.modelcontextprotocol/tasks` for clients, and the
//! tasks of 2025-11-25 at the server.
//!
//! Toward clients the id of a task begins with the short name of its session, so that requests
//! about it find the session, and those of another grant find nothing. A question about a task is
//! answered through the task, even if it comes before the server has told the task.

use tokio::time::Instant;

use super::super::{StateMachine, from_server::task_id};
use crate::{
    jsonrpc::{self, Envelope, json, object::Object},
    modern::{
        ClientCapabilities, ModernError, ModernRequest,
        error::METHOD_NOT_FOUND,
        input::{self, InputResponses},
        results,
        tools::TaskSupport,
    },
    tables::{
        links::{LinkNumber, OwnRequest},
        timers::Timer,
    },
};

/// The time to live that a task is asked for, in milliseconds.
const TASK_TTL: u64 = 600_000;

impl StateMachine {
    /// Turns a call into a task if its tool can be one and the client knows tasks.
    pub(super) fn as_task(&self, request: ModernRequest) -> Result<ModernRequest, ModernError> {
        let is_call = &*request.method == "tools/call";
        let name = request.name.as_deref().filter(|_| is_call);
        let tool = name.and_then(|name| self.modern.as_ref()?.tools()?.get(name));
        match tool.map_or(TaskSupport::Forbidden, |tool| tool.task_support) {
            TaskSupport::Forbidden => Ok(request),
            _any if !self.has_tasks() => Ok(request),
            TaskSupport::Required if !request.capabilities.tasks => Err(ModernError::missing_tasks()),
            TaskSupport::Optional | TaskSupport::Required if request.capabilities.tasks => {
                Ok(request.into_task(TASK_TTL))
            }
            TaskSupport::Optional | TaskSupport::Required => Ok(request),
        }
    }

    /// The id of the server for the task that a request names.
    ///
    /// # Errors
    ///
    /// A [`ModernError`] if the client or the server does not know tasks, or not this one.
    pub(crate) fn requested_task(&self, request: &ModernRequest) -> Result<String, ModernError> {
        if !request.capabilities.tasks {
            return Err(ModernError::missing_tasks());
        }
        // A server that has not been started yet has no task, whatever it announces.
        if self.handshake.is_negotiated() && !self.has_tasks() {
            return Err(ModernError::method_not_found());
        }
        let name = request.name.as_deref().unwrap_or_default();
        let modern = self.modern.as_ref().ok_or_else(ModernError::unknown_task)?;
        let id = name.strip_prefix(&*modern.tag).and_then(|rest| rest.strip_prefix('-'));
        let id = id.filter(|id| self.tasks.link(id).is_some());
        id.map(str::to_owned).ok_or_else(ModernError::unknown_task)
    }

    /// A task of the server (JSON text) as `tasks/get` returns it, without its outcome.
    pub(crate) fn describe_task(&self, task: &str) -> Option<String> {
        let id = task_id(Some(task))?;
        let mut flat = results::flat_task(task, &self.client_task_id(task)?)?;
        let link = self.tasks.link(&id);
        let questions = link.into_iter().flat_map(|link| self.questions.of_task(link, &id));
        let questions = questions.map(|(_, asked)| {
            let key = asked.key.as_deref().unwrap_or_default();
            let params = Object::parse(&asked.params).and_then(|params| input::question_params(&params, false));
            format!(
                "{}:{}",
                json::quote(key),
                input::question(&asked.method, params.as_deref())
            )
        });
        let questions: Vec<_> = questions.collect();
        let ended = matches!(
            flat.get("status"),
            Some(r#""completed""# | r#""failed""# | r#""cancelled""#)
        );
        if !questions.is_empty() && !ended {
            flat.set("status", r#""input_required""#);
            flat.set("inputRequests", format!("{{{}}}", questions.join(",")));
        } else if flat.get("status") == Some(r#""input_required""#) {
            // The answers are on their way.
            flat.set("status", r#""working""#);
        }
        Some(flat.to_string())
    }

    /// Passes on answers to the questions about a task. Others are ignored.
    pub(crate) fn answer_task(&mut self, id: &str, answers: &InputResponses) {
        let link = self.tasks.link(id);
        let asked = link.into_iter().flat_map(|link| self.questions.of_task(link, id));
        let asked = asked.filter_map(|(number, asked)| {
            let answer = answers.answers.get(asked.key.as_deref()?)?;
            input::is_valid(&asked.method, answer).then(|| (number, answer.clone()))
        });
        for (number, answer) in asked.collect::<Vec<_>>() {
            self.answer_question(number, &answer);
        }
    }

    /// The id of a task of the server (JSON text) toward clients.
    pub(super) fn client_task_id(&self, task: &str) -> Option<String> {
        let id = task_id(Some(task))?;
        Some(format!("{}-{id}", self.modern.as_ref()?.tag))
    }

    /// A question about a task waits for its answer, if the clients can answer it, under a key that
    /// no other open question about the task has.
    pub(super) fn ask_about_task(&mut self, now: Instant, number: u64) {
        let capabilities = self.handshake.client_capabilities();
        let capabilities = capabilities.and_then(ClientCapabilities::parse).unwrap_or_default();
        let Some(question) = self.questions.get_mut(number) else {
            return;
        };
        let (Some(asked), Some(task)) = (question.input.clone(), question.task.clone()) else {
            return;
        };
        let link = question.link;
        let params = Object::parse(&asked.params).unwrap_or_default();
        if capabilities.missing(&asked.method, &params).is_some() {
            self.reject_question(number, METHOD_NOT_FOUND, "the client has not declared this capability");
            return;
        }
        let taken = |key: &str| {
            let mut about = self.questions.of_task(link, &task);
            about.any(|(other, asked)| other != number && asked.key.as_deref() == Some(key))
        };
        let hinted = asked.key.clone().filter(|key| !taken(key));
        let key = hinted.unwrap_or_else(|| {
            let mut keys = (number_of(number)..).map(|number| input::key(None, &asked.method, number));
            keys.find(|key| !taken(key)).unwrap_or_default().into()
        });
        if let Some(asked) = self
            .questions
            .get_mut(number)
            .and_then(|question| question.input.as_mut())
        {
            asked.key = Some(key);
        }
        self.timers
            .set(Timer::Question(number), now + self.config.question_timeout);
    }

    /// The status of a task goes to the streams that have asked for it, with the outcome of a task
    /// that has one.
    pub(super) fn on_modern_task_status(&mut self, link: LinkNumber, message: &Envelope) {
        let Some(task) = message.params().map(str::to_owned) else {
            return;
        };
        let owner = task_id(Some(&task)).and_then(|id| self.tasks.link(&id));
        let Some(id) = self.client_task_id(&task) else { return };
        let streams = self.modern.as_ref().map(|modern| modern.subscriptions.for_task(&id));
        // Another server may use the same id.
        if owner != Some(link) || streams.is_none_or(|streams| streams.is_empty()) {
            return;
        }
        let status = message.param("status").and_then(json::string);
        if !matches!(status.as_deref(), Some("completed" | "failed")) {
            return self.announce_task(&task, None);
        }
        let number = self.calls.next_number();
        let id = json::quote(&task_id(Some(&task)).unwrap_or_default());
        let line = jsonrpc::request(number, "tasks/result", format!(r#"{{"taskId":{id}}}"#));
        self.send_own_request(link, number, OwnRequest::TaskResult(task.into()), line);
    }

    /// A task has ended with this outcome.
    pub(in crate::machine) fn on_task_outcome(&mut self, task: &str, error: bool, outcome: &str) {
        self.announce_task(task, Some((error, outcome)));
    }

    /// A described task with its outcome.
    pub(crate) fn with_outcome(&self, described: &str, error: bool, outcome: &str) -> Option<String> {
        let mut task = Object::parse(described)?;
        if error {
            task.set("status", r#""failed""#);
            task.set("error", results::translate_error(outcome, None));
        } else {
            task.set("status", r#""completed""#);
            task.set("result", results::complete("tools/call", outcome, None)?);
        }
        Some(task.to_string())
    }

    fn announce_task(&mut self, task: &str, outcome: Option<(bool, &str)>) {
        let (Some(id), Some(mut described)) = (self.client_task_id(task), self.describe_task(task)) else {
            return;
        };
        if let Some((error, outcome)) = outcome {
            described = self.with_outcome(&described, error, outcome).unwrap_or(described);
        }
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{described}}}"#);
        let streams = self.modern.as_ref().map(|modern| modern.subscriptions.for_task(&id));
        if let Ok(message) = jsonrpc::Envelope::parse(text.as_bytes()) {
            self.announce(streams.unwrap_or_default(), &message);
        }
    }

    fn has_tasks(&self) -> bool {
        let capabilities = self.handshake.capabilities();
        capabilities.is_some_and(|capabilities| capabilities.pointer("/tasks/requests/tools/call").is_some())
    }
}

fn number_of(question: u64) -> usize {
    usize::try_from(question).unwrap_or_default()
}
