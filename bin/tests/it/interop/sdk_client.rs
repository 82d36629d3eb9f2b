//! Drives a client of `interop/` by its line protocol, and plays the browser for it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{
    Browser,
    broker::{ChildCommand, free_port},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::harness::{Harness, password};

/// The clients of `interop/`, in the order in which tests take them.
pub(super) const SDKS: [Sdk; 4] = [Sdk::TypescriptV1, Sdk::TypescriptV2, Sdk::Python, Sdk::Rust];

/// Longer than any run takes: a run that hangs fails its test.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
pub(super) enum Sdk {
    TypescriptV1,
    TypescriptV2,
    Python,
    Rust,
}

/// A client that was told what to do and has not begun.
#[derive(Debug)]
pub(super) struct Run {
    command: Command,
    login: String,
    redirect_uri: String,
}

/// What a client said until it was done.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) sessions: usize,
    pub(super) tools: Vec<u64>,
    pub(super) results: Vec<CallResult>,
    /// What came of each stop of the tour.
    pub(super) features: Vec<(String, Value)>,
}

#[derive(Debug)]
pub(super) struct CallResult {
    pub(super) session: u64,
    pub(super) call: u64,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Authorize {
        url: String,
    },
    Session {
        protocol: String,
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
    Error {
        message: String,
    },
    Done,
}

/// What the reference server needs beside its script: a setting of the broker.
pub(super) fn modules() -> (&'static str, String) {
    (
        "child.isolation.readable",
        root().join("interop/typescript/node_modules").display().to_string(),
    )
}

/// The reference server of the MCP project, over standard streams.
pub(super) fn everything() -> ChildCommand {
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

impl Sdk {
    fn command(self) -> Command {
        let (program, script) = match self {
            Self::TypescriptV1 => ("node".into(), Some("interop/typescript/client-v1.mjs")),
            Self::TypescriptV2 => ("node".into(), Some("interop/typescript/client-v2.mjs")),
            Self::Python => (
                root().join("target/interop/python/bin/python"),
                Some("interop/python/client.py"),
            ),
            Self::Rust => (root().join("target/interop/rust/debug/interop-rust"), None),
        };
        let mut command = Command::new(program);
        command.args(script.map(|script| root().join(script)));
        command
    }
}

impl Run {
    /// Prepares a run: `size` is how many sessions, and how many calls each of them makes.
    pub(super) fn start(
        sdk: Sdk,
        harness: &Harness,
        login: &str,
        tool: &str,
        arguments: &str,
        size: [usize; 2],
    ) -> Self {
        let mut run = Self::prepare(sdk, &harness.broker.mcp_url(), login);
        run.command
            .env("TOOL", tool)
            .env("ARGUMENTS", arguments)
            .env("SESSIONS", size[0].to_string())
            .env("CALLS", size[1].to_string());
        run
    }

    /// Prepares a tour of all features with the server for the conformance suite.
    pub(super) fn tour(sdk: Sdk, mcp_url: &str, login: &str) -> Self {
        let mut run = Self::prepare(sdk, mcp_url, login);
        run.command.env("FEATURES", "1");
        run
    }

    /// Prepares a client that makes calls without end in so many sessions; their marks begin with `name`.
    pub(super) fn endure(sdk: Sdk, harness: &Harness, login: &str, name: &str, sessions: usize) -> Self {
        let mut run = Self::prepare(sdk, &harness.broker.mcp_url(), login);
        run.command.env("ENDURE", name).env("SESSIONS", sessions.to_string());
        run
    }

    /// The same for a test that gives the orders itself: the command, and where the browser comes back to.
    pub(super) fn into_parts(self) -> (Command, String) {
        (self.command, self.redirect_uri)
    }

    fn prepare(sdk: Sdk, mcp_url: &str, login: &str) -> Self {
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
        }
    }

    /// Who signs in.
    pub(super) fn login(&self) -> &str {
        &self.login
    }

    /// The same for a client that is described by a document, and perhaps signs with a key (a JWK).
    pub(super) fn described(mut self, document: Option<&str>, key: Option<&str>) -> Self {
        let variables = [("CLIENT_METADATA_URL", document), ("PRIVATE_KEY", key)];
        for (name, value) in variables {
            self.command.envs(value.map(|value| (name, value)));
        }
        self
    }

    /// Where the browser comes back to.
    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// The same for a test that gives the orders itself: the command, and where the browser comes back to.
    pub(super) fn held(mut self) -> (Command, String) {
        self.command.env("HOLD", "1");
        self.into_parts()
    }

    /// Runs the client to its end.
    pub(super) async fn finish(self) -> Outcome {
        timeout(LIMIT, self.drive()).await.expect("the client comes to an end")
    }

    async fn drive(mut self) -> Outcome {
        let mut process = self.command.spawn().expect("cargo xtask interop installs the clients");
        let mut orders = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut browser = Browser::new();
        let mut outcome = Outcome::default();
        while let Some(line) = lines.next_line().await.unwrap() {
            match serde_json::from_str(&line).unwrap() {
                Event::Authorize { url } => {
                    let url = url.parse().unwrap();
                    let password = password(&self.login);
                    let redirect = browser
                        .authorize(&url, &self.login, &password, &self.redirect_uri)
                        .await
                        .unwrap();
                    let order = format!("{}\n", json!({ "redirect": redirect }));
                    orders.write_all(order.as_bytes()).await.unwrap();
                }
                Event::Session { protocol } => {
                    assert_eq!(protocol, "2025-11-25");
                    outcome.sessions += 1;
                }
                Event::Tools { count } => outcome.tools.push(count),
                Event::Result {
                    session,
                    call,
                    text,
                    is_error,
                } => {
                    let text = text.unwrap_or_default();
                    assert!(!is_error, "{text}");
                    outcome.results.push(CallResult { session, call, text });
                }
                Event::Feature { name, result } => outcome.features.push((name, result)),
                Event::Error { message } => panic!("the client failed: {message}"),
                Event::Done => break,
            }
        }
        assert!(process.wait().await.unwrap().success());
        outcome
    }
}

impl Outcome {
    /// Looks at the text of every result; there is at least one.
    pub(super) fn every_text(&self, mut look: impl FnMut(&str)) {
        assert!(!self.results.is_empty());
        self.results.iter().for_each(|result| look(&result.text));
    }
}
