//! The clients of `interop/` as processes, driven by their line protocol. The test plays the
//! browser.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{
    Browser,
    broker::{ChildCommand, free_port, programs},
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use url::Url;

use super::json_lines::JsonLines;
use crate::harness::{Harness, password};

/// The clients of `interop/`, in the order of the tests.
pub(super) const SDKS: [Sdk; 4] = [Sdk::TypescriptV1, Sdk::TypescriptV2, Sdk::Python, Sdk::Rust];

/// Longer than any run takes, so that a run that hangs fails its test.
pub(super) const RUN_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
pub(super) enum Sdk {
    TypescriptV1,
    TypescriptV2,
    Python,
    Rust,
}

/// A configured client that has not started.
#[derive(Debug)]
pub(super) struct Run {
    command: Command,
    login: String,
    redirect_uri: String,
    protocol: &'static str,
}

/// A running client.
#[derive(Debug)]
pub(super) struct ClientProcess {
    process: Child,
    messages: JsonLines,
    login: String,
    redirect_uri: String,
    /// The protocol revision that its sessions must have.
    protocol: &'static str,
}

/// The events of a client up to `done`.
#[derive(Debug, Default)]
pub(super) struct RunResult {
    pub(super) sessions: usize,
    pub(super) tools: Vec<u64>,
    pub(super) results: Vec<CallResult>,
    /// The result of each feature check, by its name.
    pub(super) features: Vec<(String, Value)>,
}

#[derive(Debug)]
pub(super) struct CallResult {
    pub(super) session: u64,
    pub(super) call: u64,
    pub(super) text: String,
}

/// The events of the line protocol, as `interop/README.md` describes them.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event {
    Authorize {
        url: Url,
    },
    Session {
        protocol: Option<String>,
    },
    Tools {
        count: u64,
    },
    Result {
        session: u64,
        call: u64,
        text: Option<String>,
        #[serde(rename = "isError")]
        is_error: bool,
    },
    Feature {
        name: String,
        result: Value,
    },
    Question {
        message: String,
    },
    Ready,
    Call(SustainedCall),
    Notification {
        session: String,
        data: Value,
    },
    Error {
        message: String,
    },
    Done,
}

/// A call of a client that calls without pause. It has either a text or an error.
#[derive(Debug, Deserialize)]
pub(super) struct SustainedCall {
    pub(super) session: String,
    pub(super) mark: String,
    /// Milliseconds since the Unix epoch.
    pub(super) start: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) end: u64,
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) error: String,
}

/// The broker setting that lets a child read the modules of the reference server.
pub(super) fn readable_modules() -> (&'static str, String) {
    (
        "child.isolation.readable",
        root().join("interop/typescript/node_modules").display().to_string(),
    )
}

/// The reference server of the MCP project, over standard streams.
pub(super) fn everything_server() -> ChildCommand {
    let script = root().join("interop/typescript/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    let args = vec![script.to_str().unwrap().to_owned(), "stdio".to_owned()];
    ChildCommand {
        command: "node".into(),
        args,
        env: vec![],
    }
}

/// The root of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The client for which an authorization request asks.
pub(super) fn client_id_in(authorize: &Url) -> String {
    let client_id = authorize.query_pairs().find(|(name, _)| name == "client_id");
    client_id.unwrap().1.into_owned()
}

impl Sdk {
    fn command(self) -> Command {
        let (program, script) = match self {
            Self::TypescriptV1 => ("node".into(), Some("interop/typescript/client-v1.mjs")),
            Self::TypescriptV2 => ("node".into(), Some("interop/typescript/client-v2.mjs")),
            Self::Python => (
                root().join("target/interop/python/bin/python"),
                Some("interop/python/client.py"),
            ),
            Self::Rust => (programs().interop_rust.clone(), None),
        };
        let mut command = Command::new(program);
        command.args(script.map(|script| root().join(script)));
        command
    }
}

impl Run {
    /// Configures calls of a tool; `size` is the number of sessions and the number of calls in
    /// each.
    pub(super) fn tool_calls(
        sdk: Sdk,
        harness: &Harness,
        login: &str,
        tool: &str,
        arguments: &str,
        size: [usize; 2],
    ) -> Self {
        let mut run = Self::new(sdk, &harness.broker.mcp_url(), login);
        run.command
            .env("TOOL", tool)
            .env("ARGUMENTS", arguments)
            .env("SESSIONS", size[0].to_string())
            .env("CALLS", size[1].to_string());
        run
    }

    /// Configures one call of a tool, after which the client waits for commands. The client passes
    /// questions of the server on.
    pub(super) fn one_call(sdk: Sdk, mcp_url: &str, login: &str, tool: &str, arguments: &Value) -> Self {
        let mut run = Self::new(sdk, mcp_url, login).interactive();
        run.command
            .env("TOOL", tool)
            .env("ARGUMENTS", arguments.to_string())
            .env("QUESTIONS", "1");
        run
    }

    /// Configures the feature checks with the server for the conformance suite.
    pub(super) fn feature_checks(sdk: Sdk, mcp_url: &str, login: &str) -> Self {
        let mut run = Self::new(sdk, mcp_url, login);
        run.command.env("FEATURE_CHECKS", "1");
        run
    }

    /// Configures calls without pause in a number of sessions; `prefix` is the prefix of their
    /// marks.
    pub(super) fn sustained_calls(sdk: Sdk, harness: &Harness, login: &str, prefix: &str, sessions: usize) -> Self {
        let mut run = Self::new(sdk, &harness.broker.mcp_url(), login);
        run.command
            .env("SUSTAINED_CALLS", prefix)
            .env("SESSIONS", sessions.to_string());
        run
    }

    fn new(sdk: Sdk, mcp_url: &str, login: &str) -> Self {
        let redirect_uri = format!("http://127.0.0.1:{}/callback", free_port());
        let mut command = sdk.command();
        command
            .env("MCP_URL", mcp_url)
            .env("REDIRECT_URI", &redirect_uri)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        Self {
            command,
            login: login.to_owned(),
            redirect_uri,
            protocol: "2025-11-25",
        }
    }

    /// Makes the client speak the protocol without sessions; `era` is its way of finding out that
    /// the server does, too.
    pub(super) fn stateless(mut self, era: &str) -> Self {
        self.command.env("ERA", era);
        self.protocol = "2026-07-28";
        self
    }

    /// Adds the URL of a client metadata document, and perhaps a key (a JWK) for assertions.
    pub(super) fn with_metadata_document(mut self, url: Option<&str>, key: Option<&str>) -> Self {
        let variables = [("CLIENT_METADATA_URL", url), ("PRIVATE_KEY", key)];
        for (name, value) in variables {
            self.command.envs(value.map(|value| (name, value)));
        }
        self
    }

    /// Makes the client wait for commands after its calls.
    pub(super) fn interactive(mut self) -> Self {
        self.command.env("INTERACTIVE", "1");
        self
    }

    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    pub(super) fn spawn(mut self) -> ClientProcess {
        let mut process = self.command.spawn().expect("cargo xtask interop installs the clients");
        ClientProcess {
            messages: JsonLines::take_from(&mut process),
            process,
            login: self.login,
            redirect_uri: self.redirect_uri,
            protocol: self.protocol,
        }
    }

    /// Runs the client until it exits.
    pub(super) async fn finish(self) -> RunResult {
        let process = self.spawn();
        timeout(RUN_TIMEOUT, process.collect())
            .await
            .expect("the client does not exit")
    }
}

impl ClientProcess {
    /// The next event. Panics if the client ends without `done`. Cancel safe.
    pub(super) async fn event(&mut self) -> Event {
        self.messages.receive().await
    }

    pub(super) async fn send(&mut self, command: &Value) {
        self.messages.send(command).await;
    }

    /// Answers an `authorize` event: signs the user in and sends the redirect to the client.
    pub(super) async fn sign_in(&mut self, browser: &mut Browser, url: &Url) {
        let password = password(&self.login);
        let redirect = browser
            .authorize(url, &self.login, &password, &self.redirect_uri)
            .await
            .unwrap();
        self.send(&json!({ "redirect": redirect })).await;
    }

    pub(super) async fn exited(&mut self) -> ExitStatus {
        timeout(RUN_TIMEOUT, self.process.wait())
            .await
            .expect("the client does not exit")
            .unwrap()
    }

    async fn collect(mut self) -> RunResult {
        let run = self.collect_until(|event| matches!(event, Event::Done)).await;
        assert!(self.exited().await.success());
        run
    }

    /// Signs the user in where the client demands it, and collects the events up to a last one.
    pub(super) async fn collect_until(&mut self, is_last: impl Fn(&Event) -> bool) -> RunResult {
        let mut browser = Browser::new();
        let mut run = RunResult::default();
        loop {
            let event = self.event().await;
            if is_last(&event) {
                return run;
            }
            match event {
                Event::Authorize { url } => self.sign_in(&mut browser, &url).await,
                Event::Session { protocol } => {
                    assert_eq!(protocol.as_deref(), Some(self.protocol));
                    run.sessions += 1;
                }
                Event::Tools { count } => run.tools.push(count),
                Event::Result {
                    session,
                    call,
                    text,
                    is_error,
                } => {
                    let text = text.unwrap_or_default();
                    assert!(!is_error, "{text}");
                    run.results.push(CallResult { session, call, text });
                }
                Event::Feature { name, result } => run.features.push((name, result)),
                Event::Error { message } => panic!("the client failed: {message}"),
                other @ (Event::Question { .. }
                | Event::Ready
                | Event::Call(_)
                | Event::Notification { .. }
                | Event::Done) => {
                    panic!("unexpected event: {other:?}")
                }
            }
        }
    }
}

impl RunResult {
    /// Passes the text of every result to a check. There must be at least one.
    pub(super) fn for_each_text(&self, check: impl FnMut(&str)) {
        assert!(!self.results.is_empty());
        self.results.iter().map(|result| result.text.as_str()).for_each(check);
    }
}
