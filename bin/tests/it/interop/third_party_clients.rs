//! Programs that people use as MCP clients: `mcp-remote` and the Inspector's command line. Both run
//! unchanged. The test visits the addresses that they print for their user.

use std::process::Stdio;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Browser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use url::Url;

use super::{
    authorization_suite::node,
    json_lines::JsonLines,
    sdk_client::{RUN_TIMEOUT, client_id_in, root},
};
use crate::harness::{Harness, password};

/// `mcp-remote`, between a host (this test) and the broker.
#[derive(Debug)]
pub(super) struct McpRemote {
    process: Child,
    messages: JsonLines,
    next_id: u64,
    authorizations: JoinHandle<Vec<String>>,
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
        let stderr = process.stderr.take().unwrap();
        Self {
            authorizations: visit_printed_urls(stderr, harness.broker.url(), login, port),
            messages: JsonLines::take_from(&mut process),
            process,
            next_id: 0,
            _home: home,
        }
    }

    /// Does the handshake of a host.
    pub(super) async fn open(&mut self) {
        let initialize = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "host", "version": "1" },
        });
        self.request("initialize", initialize).await;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.messages.send(&initialized).await;
    }

    pub(super) async fn call(&mut self) -> String {
        let params = json!({ "name": "get_my_user_info", "arguments": {} });
        let response = self.request("tools/call", params).await;
        let text = response["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{response}")).to_owned()
    }

    /// Sends a request over standard streams and waits for the response.
    async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.messages.send(&request).await;
        let response = async {
            loop {
                let message: Value = self.messages.receive().await;
                if message["id"] == id && message.get("method").is_none() {
                    return message;
                }
            }
        };
        timeout(RUN_TIMEOUT, response)
            .await
            .unwrap_or_else(|_| panic!("mcp-remote does not answer {method}"))
    }

    /// Ends it, and returns the client id of each authorization request.
    pub(super) async fn end(mut self) -> Vec<String> {
        drop(self.messages);
        self.process.kill().await.unwrap();
        self.authorizations.await.unwrap()
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
    /// The client id of each authorization request.
    pub(super) authorizations: Vec<String>,
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
            authorizations: Vec::new(),
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
            // Without it and without a terminal, the Inspector does not start a sign-in.
            .env("MCP_AUTO_OPEN_ENABLED", "true");
        let mut process = spawn(command, &self.home);
        let stderr = process.stderr.take().unwrap();
        let authorizations = visit_printed_urls(stderr, self.broker.clone(), &self.login, self.port);
        let output = timeout(RUN_TIMEOUT, process.wait_with_output())
            .await
            .expect("the Inspector does not exit")
            .unwrap();
        self.authorizations.extend(authorizations.await.unwrap());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{stdout}");
        let response: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}"));
        let result = response.get("result").unwrap_or(&response);
        let text = result["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{stdout}")).to_owned()
    }
}

/// Starts a program in its own home directory and without a browser.
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

/// Reads a program's standard error, and visits each authorization URL in it. Returns their client
/// ids.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the program, whose standard error it reads, and every caller awaits it"
)]
fn visit_printed_urls(
    stderr: impl AsyncRead + Send + Unpin + 'static,
    broker: String,
    login: &str,
    port: u16,
) -> JoinHandle<Vec<String>> {
    let authorize = broker + "/oauth/authorize?";
    let login = login.to_owned();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        let mut authorizations = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            let Some(start) = line.find(&authorize) else {
                continue;
            };
            let url: Url = line[start..].trim().parse().unwrap();
            let mut browser = Browser::new();
            let redirect_uri = format!("http://127.0.0.1:{port}/");
            let redirect = browser
                .authorize(&url, &login, &password(&login), &redirect_uri)
                .await
                .unwrap();
            // The program listens at its redirect URI.
            assert_eq!(browser.get(&redirect).await.unwrap().status, StatusCode::OK);
            authorizations.push(client_id_in(&url));
        }
        authorizations
    })
}
