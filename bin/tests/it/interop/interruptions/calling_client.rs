//! A client that makes one call, with all that can happen during it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each step expects one or two events and fails with any other"
)]

use serde_json::{Value, json};
use testkit::{Browser, broker::free_port};
use tokio::{task::JoinSet, time::timeout};

use crate::interop::{
    clients::ClientKind,
    sdk_client::{ClientProcess, Event, RUN_TIMEOUT, Run},
    third_party_clients::{Inspector, McpRemote},
};

/// A client whose user has signed in, and which has sent its call.
pub(super) struct CallingClient(Program);

enum Program {
    Sdk(Box<ClientProcess>),
    McpRemote {
        remote: Box<McpRemote>,
        call: u64,
        /// The id of the open question.
        question: Value,
    },
    /// It ends with its call.
    Inspector(JoinSet<Result<String, String>>),
}

impl CallingClient {
    /// Starts a client for a broker with this public URL, signs its user in, and lets it call a
    /// tool.
    pub(super) async fn start(kind: ClientKind, broker: &str, login: &str, tool: &str, arguments: &Value) -> Self {
        Self(match kind {
            ClientKind::Sdk(sdk) => {
                let run = Run::one_call(sdk, &format!("{broker}/mcp"), login, tool, arguments);
                let mut client = run.spawn();
                let opening = async {
                    loop {
                        match client.event().await {
                            Event::Authorize { url } => client.sign_in(&mut Browser::new(), &url).await,
                            Event::Tools { .. } => return,
                            Event::Error { message } => panic!("{sdk:?} failed: {message}"),
                            Event::Session { .. } => {}
                            other => unexpected(&other),
                        }
                    }
                };
                timeout(RUN_TIMEOUT, opening)
                    .await
                    .unwrap_or_else(|_| panic!("{sdk:?} opens no session"));
                Program::Sdk(Box::new(client))
            }
            ClientKind::McpRemote => {
                let mut remote = McpRemote::start(broker, login, free_port(), None);
                remote.open().await;
                let params = json!({ "name": tool, "arguments": arguments });
                let call = remote.send_request("tools/call", params).await;
                Program::McpRemote {
                    remote: Box::new(remote),
                    call,
                    question: Value::Null,
                }
            }
            ClientKind::Inspector => {
                let mut inspector = Inspector::new(broker, login, free_port(), None);
                // It signs in with a call of its own.
                inspector.call().await;
                let (tool, arguments) = (tool.to_owned(), arguments.clone());
                let mut calls = JoinSet::new();
                calls.spawn(async move { inspector.call_tool(&tool, &arguments).await });
                Program::Inspector(calls)
            }
        })
    }

    /// Waits for a question of the server. Returns its text.
    pub(super) async fn question(&mut self) -> String {
        match &mut self.0 {
            Program::Sdk(client) => match next_event(client).await {
                Event::Question { message } => message,
                other => unexpected(&other),
            },
            Program::McpRemote { remote, question, .. } => {
                let message = remote.question().await;
                *question = message["id"].clone();
                message["params"]["message"].as_str().unwrap().to_owned()
            }
            Program::Inspector(_) => panic!("the Inspector passes no question on"),
        }
    }

    /// Accepts the open question.
    pub(super) async fn answer(&mut self, nonce: &str) {
        match &mut self.0 {
            Program::Sdk(client) => client.send(&json!({ "answer": nonce })).await,
            Program::McpRemote { remote, question, .. } => {
                let result = json!({ "action": "accept", "content": { "nonce": nonce } });
                remote.answer(question, result).await;
            }
            Program::Inspector(_) => panic!("the Inspector passes no question on"),
        }
    }

    /// Waits for the end of the call: the text of its result, or its error.
    pub(super) async fn outcome(&mut self) -> Result<String, String> {
        match &mut self.0 {
            Program::Sdk(client) => match next_event(client).await {
                Event::Result { text, is_error, .. } => {
                    let text = text.unwrap_or_default();
                    if is_error { Err(text) } else { Ok(text) }
                }
                Event::Error { message } => Err(message),
                other => unexpected(&other),
            },
            Program::McpRemote { remote, call, .. } => {
                let response = remote.response(*call).await;
                let text = response["result"]["content"][0]["text"].as_str();
                text.map(str::to_owned).ok_or_else(|| response.to_string())
            }
            Program::Inspector(calls) => calls.join_next().await.expect("one call was made").unwrap(),
        }
    }

    /// Ends the client, which must still be running unless it ends with its call.
    pub(super) async fn end(self) {
        match self.0 {
            Program::Sdk(mut client) => {
                client.send(&json!({ "end": true })).await;
                loop {
                    match next_event(&mut client).await {
                        Event::Ready => {}
                        Event::Done => break,
                        other => unexpected(&other),
                    }
                }
            }
            Program::McpRemote { remote, .. } => drop(remote.end().await),
            Program::Inspector(_) => {}
        }
    }
}

async fn next_event(client: &mut ClientProcess) -> Event {
    timeout(RUN_TIMEOUT, client.event()).await.expect("an event comes")
}

fn unexpected(event: &Event) -> ! {
    panic!("unexpected event: {event:?}")
}
