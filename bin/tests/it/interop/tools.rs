//! Programs that people use as MCP clients, as they are: `mcp-remote` and the Inspector's command line. What they print for a
//! person to visit is visited.

use std::process::Stdio;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Browser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};
use url::Url;

use super::{
    authorization_suite::node,
    scripted_client::{client_in, say},
    sdk_client::{LIMIT, root},
};
use crate::harness::{Harness, password};

/// `mcp-remote`, between a host, which is this test, and the broker.
#[derive(Debug)]
pub(super) struct McpRemote {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    asked: u64,
    visits: JoinHandle<Vec<String>>,
    _home: TempDir,
}

impl McpRemote {
    pub(super) fn start(harness: &Harness, login: &str, port: u16, document: Option<&str>) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = Command::new("node");
        command
            .arg(root().join("interop/tools/node_modules/mcp-remote/dist/proxy.js"))
            .arg(harness.broker.mcp_url())
            .args([&port.to_string(), "--host", "127.0.0.1"])
            .args(document.into_iter().flat_map(|url| ["--client-metadata-url", url]))
            .env("MCP_REMOTE_CONFIG_DIR", home.path());
        let mut process = spawn(command, &home);
        Self {
            visits: visitor(process.stderr.take().unwrap(), harness.broker.url(), login, port),
            orders: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            asked: 0,
            _home: home,
        }
    }

    /// The handshake of a host.
    pub(super) async fn open(&mut self) {
        let initialize = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "host", "version": "1" },
        });
        self.ask("initialize", initialize).await;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        say(&mut self.orders, &initialized).await;
    }

    pub(super) async fn call(&mut self) -> String {
        let params = json!({ "name": "get_my_user_info", "arguments": {} });
        let answer = self.ask("tools/call", params).await;
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Asks over standard streams, as a host does, and waits for the answer.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.asked;
        self.asked += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        say(&mut self.orders, &request).await;
        let answer = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("mcp-remote goes on");
                let message: Value = serde_json::from_str(&line).unwrap();
                if message["id"] == id && message.get("method").is_none() {
                    return message;
                }
            }
        };
        timeout(LIMIT, answer)
            .await
            .unwrap_or_else(|_| panic!("mcp-remote has never answered {method}"))
    }

    pub(super) async fn end(mut self) -> Vec<String> {
        drop(self.orders);
        self.process.kill().await.unwrap();
        self.visits.await.unwrap()
    }
}

/// The Inspector's command line.
#[derive(Debug)]
pub(super) struct Inspector {
    broker: String,
    mcp_url: String,
    login: String,
    home: TempDir,
    port: u16,
    document: Option<String>,
    /// For which client a person was asked, each time.
    pub(super) visits: Vec<String>,
}

impl Inspector {
    pub(super) fn new(harness: &Harness, login: &str, port: u16, document: Option<String>) -> Self {
        Self {
            broker: harness.broker.url(),
            mcp_url: harness.broker.mcp_url(),
            login: login.to_owned(),
            home: TempDir::new().unwrap(),
            port,
            document,
            visits: Vec::new(),
        }
    }

    pub(super) async fn call(&mut self) -> String {
        let launcher = "interop/tools/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
        let callback = format!("http://127.0.0.1:{}/oauth/callback", self.port);
        let mut command = Command::new(node(&root().join("interop/conformance")));
        command
            .arg(root().join(launcher))
            .arg("--cli")
            .args(["--server-url", &self.mcp_url, "--method", "tools/call"])
            .args(["--tool-name", "get_my_user_info", "--format", "json"])
            .args(["--callback-url", &callback])
            .args(self.document.iter().flat_map(|url| ["--client-metadata-url", url]))
            .env("MCP_STORAGE_DIR", self.home.path())
            .env("MCP_INSPECTOR_SECRET_STORE", "file")
            // It would not ask a person otherwise, without a terminal.
            .env("MCP_AUTO_OPEN_ENABLED", "true");
        let mut process = spawn(command, &self.home);
        let visits = visitor(
            process.stderr.take().unwrap(),
            self.broker.clone(),
            &self.login,
            self.port,
        );
        let output = timeout(LIMIT, process.wait_with_output())
            .await
            .expect("the Inspector comes to an end")
            .unwrap();
        self.visits.extend(visits.await.unwrap());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        let result = answer.get("result").unwrap_or(&answer);
        let text = result["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

/// Starts a program that has no browser but the test's, and a home of its own.
fn spawn(mut command: Command, home: &TempDir) -> Child {
    command
        .env("HOME", home.path())
        .env("BROWSER", "true")
        .env_remove("DISPLAY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cargo xtask interop installs the program")
}

/// Watches a program's standard error for addresses that a person has to visit, and visits them. Gives the clients that
/// they were asked for.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the program, whose standard error it reads, and every caller awaits it"
)]
fn visitor(
    stderr: impl AsyncRead + Send + Unpin + 'static,
    broker: String,
    login: &str,
    port: u16,
) -> JoinHandle<Vec<String>> {
    let authorize = broker + "/oauth/authorize?";
    let login = login.to_owned();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        let mut visits = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            let Some(at) = line.find(&authorize) else {
                continue;
            };
            let url: Url = line[at..].trim().parse().unwrap();
            let mut browser = Browser::new();
            let back = format!("http://127.0.0.1:{port}/");
            let back = browser.authorize(&url, &login, &password(&login), &back).await.unwrap();
            // The program listens there.
            assert_eq!(browser.get(&back).await.unwrap().status, StatusCode::OK);
            visits.push(client_in(&url));
        }
        visits
    })
}
