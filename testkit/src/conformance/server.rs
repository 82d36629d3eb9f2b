//! The server: what it does with a message.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::{sync::mpsc, task::yield_now};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Failure, METHOD_NOT_FOUND, Outcome, call::Call, connection::Connection, prompts, questions, resources,
    tasks::Tasks, tools,
};

const NEWEST: &str = "2025-11-25";

const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST];

pub(super) struct Server {
    connection: Arc<Connection>,
    tasks: Arc<Tasks>,
    /// The calls and the tasks.
    work: TaskTracker,
    /// Cancelled at the end of the input.
    ended: CancellationToken,
    /// The calls that run, by their ids as JSON. Every change is one operation, so a poisoned lock
    /// is still consistent; never held across an await.
    calls: Mutex<BTreeMap<String, CancellationToken>>,
}

impl Server {
    pub(super) fn new(lines: mpsc::Sender<Value>) -> Self {
        let connection = Arc::new(Connection::new(lines));
        Self {
            tasks: Arc::new(Tasks::new(Arc::clone(&connection))),
            connection,
            work: TaskTracker::new(),
            ended: CancellationToken::new(),
            calls: Mutex::default(),
        }
    }

    /// Starts a call, and answers every other message at once.
    pub(super) fn receive(self: &Arc<Self>, mut message: Value) {
        let (id, params) = (message["id"].take(), message["params"].take());
        match message["method"].as_str() {
            None => self.connection.answered(&id, message),
            Some("notifications/cancelled") => {
                if let Some(call) = self.calls().get(&params["requestId"].to_string()) {
                    call.cancel();
                }
            }
            Some(_) if id.is_null() => {}
            Some(method @ ("tools/call" | "prompts/get" | "tasks/result")) => {
                let cancelled = self.ended.child_token();
                self.calls().insert(id.to_string(), cancelled.clone());
                let (server, method) = (Arc::clone(self), method.to_owned());
                self.work.spawn(async move {
                    let tag = params["arguments"]["tag"].as_str().unwrap_or_default().to_owned();
                    tokio::select! {
                        outcome = server.call(&method, params) => server.answer(&id, outcome),
                        () = cancelled.cancelled() => server.connection.state().cancelled.push(tag),
                    }
                    server.calls().remove(&id.to_string());
                });
            }
            Some(method) => self.answer(&id, self.reply(method, &params)),
        }
    }

    /// Ends the calls and the tasks.
    pub(super) async fn end(&self) {
        self.ended.cancel();
        self.work.close();
        self.work.wait().await;
    }

    async fn call(&self, method: &str, params: Value) -> Outcome {
        let call = Call {
            connection: Arc::clone(&self.connection),
            tasks: Arc::clone(&self.tasks),
            params,
            task: None,
        };
        match method {
            "tools/call" => self.call_tool(call).await,
            "prompts/get" => prompts::get(&call).await,
            _ => self.tasks.result(task_id(&call.params)).await,
        }
    }

    /// Runs a tool, as a task if its client says so.
    async fn call_tool(&self, mut call: Call) -> Outcome {
        let name = call.params["name"].as_str().unwrap_or_default();
        let refusal = match (tools::task_support(name), call.params["task"].is_null()) {
            (None, false) => format!("{name} does not support tasks"),
            (Some("required"), true) => format!("{name} is only a task"),
            (_, true) => return tools::run(&call).await,
            (Some(_), false) => {
                if name == tools::ASKS_FIRST {
                    let user = questions::ask_name(&call).await?;
                    call.params["arguments"] = json!({ "name": user });
                }
                return self.start_task(call).await;
            }
        };
        Err(Failure::Error(METHOD_NOT_FOUND, refusal))
    }

    async fn start_task(&self, mut call: Call) -> Outcome {
        let (id, finished) = self.tasks.add(&call.params);
        call.task = Some(id.clone());
        let (tasks, ended, task) = (Arc::clone(&self.tasks), self.ended.clone(), id.clone());
        self.work.spawn(async move {
            let outcome = tokio::select! {
                outcome = tools::run(&call) => outcome,
                () = finished.cancelled() => return,
                () = ended.cancelled() => return,
            };
            let outcome = match outcome {
                Err(Failure::Tool(text)) => Ok(tools::failed(&text)),
                outcome => outcome,
            };
            let status = match &outcome {
                Ok(result) if result["isError"] != json!(true) => "completed",
                _ => "failed",
            };
            tasks.finish(&task, status, outcome);
        });
        // The task may ask before the answer is out.
        yield_now().await;
        Ok(json!({ "task": self.tasks.get(&id)? }))
    }

    fn reply(&self, method: &str, params: &Value) -> Outcome {
        let uri = || params["uri"].as_str().unwrap_or_default().to_owned();
        match method {
            "initialize" => Ok(self.initialize(params)),
            "ping" => Ok(json!({})),
            "logging/setLevel" => {
                let is_known = self.connection.set_level(&params["level"]);
                is_known
                    .then_some(json!({}))
                    .ok_or_else(|| Failure::params("unknown level"))
            }
            "tools/list" => Ok(json!({ "tools": tools::list() })),
            "prompts/list" => Ok(json!({ "prompts": prompts::list() })),
            "completion/complete" => Ok(prompts::complete(params)),
            "resources/list" => Ok(json!({ "resources": resources::list() })),
            "resources/templates/list" => Ok(json!({ "resourceTemplates": resources::templates() })),
            "resources/read" => resources::read(&uri()),
            "resources/subscribe" => {
                self.connection.state().subscriptions.insert(uri());
                Ok(json!({}))
            }
            "resources/unsubscribe" => {
                self.connection.state().subscriptions.remove(&uri());
                Ok(json!({}))
            }
            "tasks/list" => Ok(self.tasks.list()),
            "tasks/get" => self.tasks.get(task_id(params)),
            "tasks/cancel" => self.tasks.cancel(task_id(params)),
            _ => Err(Failure::Error(METHOD_NOT_FOUND, format!("no method {method:?}"))),
        }
    }

    fn initialize(&self, params: &Value) -> Value {
        self.connection.state().capabilities = params["capabilities"].clone();
        let version = VERSIONS
            .into_iter()
            .find(|version| params["protocolVersion"] == *version);
        json!({
            "protocolVersion": version.unwrap_or(NEWEST),
            "capabilities": {
                "completions": {},
                "logging": {},
                "prompts": { "listChanged": true },
                "resources": { "listChanged": true, "subscribe": true },
                "tasks": { "cancel": {}, "list": {}, "requests": { "tools": { "call": {} } } },
                "tools": { "listChanged": true },
            },
            "serverInfo": { "name": "conformance", "version": env!("CARGO_PKG_VERSION") },
        })
    }

    fn answer(&self, id: &Value, outcome: Outcome) {
        let mut message = json!({ "jsonrpc": "2.0", "id": id });
        match outcome {
            Ok(result) => message["result"] = result,
            Err(Failure::Tool(text)) => message["result"] = tools::failed(&text),
            Err(Failure::Error(code, text)) => message["error"] = json!({ "code": code, "message": text }),
        }
        self.connection.send(message);
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn task_id(params: &Value) -> &str {
    params["taskId"].as_str().unwrap_or_default()
}
