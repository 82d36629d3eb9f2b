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
use crate::harness::password;

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
    /// Starts it for a broker with this public URL.
    pub(super) fn start(broker: &str, login: &str, port: u16, document: Option<&str>) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = Command::new("node");
        command
            .arg(root().join("interop/tools/node_modules/mcp-remote/dist/proxy.js"))
            .arg(format!("{broker}/mcp"))
            .args([&port.to_string(), "--host", "127.0.0.1"])
            .args(document.into_iter().flat_map(|url| ["--client-metadata-url", url]))
            .env("MCP_REMOTE_CONFIG_DIR", home.path());
        let mut process = spawn(command, &home);
        let stderr = process.stderr.take().unwrap();
        Self {
            authorizations: visit_printed_urls(stderr, broker.to_owned(), login, port),
            messages: JsonLines::take_from(&mut process),
            process,
            next_id: 0,
            _home: home,
        }
    }

    /// Does the handshake of a host.
    pub(super) async fn open(&mut self) {
        let initialize = json!({
            "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} },
            "clientInfo": { "name": "host", "version": "1" },
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

    /// Sends a request over standard streams. Returns its id.
    pub(super) async fn send_request(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.messages.send(&request).await;
        id
    }

    /// Waits for the response to a request.
    pub(super) async fn response(&mut self, id: u64) -> Value {
        self.receive(|message| message["id"] == id && message.get("method").is_none())
            .await
    }

    /// Waits for a question of the server.
    pub(super) async fn question(&mut self) -> Value {
        self.receive(|message| message["method"] == "elicitation/create").await
    }

    /// Answers a request of the server.
    pub(super) async fn answer(&mut self, id: &Value, result: Value) {
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        self.messages.send(&answer).await;
    }

    /// Sends a request and waits for the response.
    async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params).await;
        self.response(id).await
    }

    /// Waits for a message, and drops those before it.
    async fn receive(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let wanted = async {
            loop {
                let message: Value = self.messages.receive().await;
                if is_wanted(&message) {
                    return message;
                }
            }
        };
        timeout(RUN_TIMEOUT, wanted)
            .await
            .expect("mcp-remote passes the message on")
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
    login: String,
    home: TempDir,
    port: u16,
    document: Option<String>,
    /// The client id of each authorization request.
    pub(super) authorizations: Vec<String>,
}

impl Inspector {
    /// For a broker with this public URL.
    pub(super) fn new(broker: &str, login: &str, port: u16, document: Option<String>) -> Self {
        Self {
            broker: broker.to_owned(),
            login: login.to_owned(),
            home: TempDir::new().unwrap(),
            port,
            document,
            authorizations: Vec::new(),
        }
    }

    pub(super) async fn call(&mut self) -> String {
        let outcome = self.call_tool("get_my_user_info", &json!({})).await;
        outcome.unwrap_or_else(|output| panic!("{output}"))
    }

    /// Calls a tool. Returns the text of its result, or what the program printed instead.
    pub(super) async fn call_tool(&mut self, tool: &str, arguments: &Value) -> Result<String, String> {
        let launcher = "interop/tools/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
        let callback = format!("http://127.0.0.1:{}/oauth/callback", self.port);
        let mut command = Command::new(node(&root().join("interop/conformance")));
        command
            .arg(root().join(launcher))
            .arg("--cli")
            .args([
                "--server-url",
                &format!("{}/mcp", self.broker),
                "--method",
                "tools/call",
            ])
            .args(["--tool-name", tool, "--format", "json"])
            .args(["--tool-args-json", &arguments.to_string()])
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
        let response: Value = serde_json::from_str(&stdout).unwrap_or_default();
        let result = response.get("result").unwrap_or(&response);
        match result["content"][0]["text"].as_str() {
            Some(text) if output.status.success() && result["isError"] != true => Ok(text.to_owned()),
            _ => Err(stdout),
        }
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
