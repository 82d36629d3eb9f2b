//! Every client behind one face: it signs a user in, once, and calls a tool as often as it is told to.
//!
//! The clients of `interop/` stay with one session. `mcp-remote` stays too, between a host and the broker. The Inspector's
//! command line is another process for each call, and keeps its sign-in in a file.

use std::process::Stdio;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Browser, Host, broker::free_port};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};
use url::Url;

use super::{
    conformance::node,
    sdk::{LIMIT, Run, SDKS, Sdk, root},
};
use crate::bed::{Bed, login_in, password};

/// All of them, in the order in which tests take them.
pub(super) const CLIENTS: [Kind; 6] = [
    Kind::Sdk(SDKS[0]),
    Kind::Sdk(SDKS[1]),
    Kind::Sdk(SDKS[2]),
    Kind::Sdk(SDKS[3]),
    Kind::McpRemote,
    Kind::Inspector,
];

/// Which client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Sdk(Sdk),
    McpRemote,
    Inspector,
}

/// How a client makes itself known.
#[derive(Clone, Copy, Debug)]
pub(super) enum KnownBy<'h> {
    /// It registers itself (RFC 7591).
    Registration,
    /// A document at this host describes it, and it has no secret.
    Document(&'h Host),
    /// A document at this host describes it, with the key that it signs with.
    Key(&'h Host),
}

/// A client whose user has signed in.
#[derive(Debug)]
pub(super) struct Client {
    inner: Inner,
    /// The user that it acts for.
    login: String,
    /// The URL of the document that describes it.
    document: Option<String>,
}

#[derive(Debug)]
enum Inner {
    Sdk(Box<Held>),
    McpRemote(Box<McpRemote>),
    Inspector(Inspector),
}

/// The key of a client: an example that is published (RFC 7515 appendix A.3.1).
fn key() -> Value {
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    })
}

/// The public half of a key.
fn public(mut key: Value) -> Value {
    key.as_object_mut().unwrap().remove("d");
    key
}

impl KnownBy<'_> {
    /// Puts the document of a client there, and gives its URL.
    fn describe(self, redirect_uri: &str) -> Option<String> {
        let (host, jwks) = match self {
            Self::Registration => return None,
            Self::Document(host) => (host, None),
            Self::Key(host) => (host, Some(json!({ "keys": [public(key())] }))),
        };
        // The port of its redirect URI is no other client's.
        let path = format!("/{}/client.json", Url::parse(redirect_uri).unwrap().port().unwrap());
        let id = format!("https://client.example{path}");
        let mut document = json!({
            "client_id": id,
            "client_name": "A described client",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        });
        if let Some(jwks) = jwks {
            document["token_endpoint_auth_method"] = json!("private_key_jwt");
            document["jwks"] = jwks;
        }
        host.json(&path, &document);
        Some(id)
    }
}

impl Client {
    /// Starts a client of a user. The future lets the user sign in, and calls the tool once.
    pub(super) fn start(
        kind: Kind,
        bed: &Bed,
        login: &str,
        known_by: KnownBy<'_>,
    ) -> impl Future<Output = Self> + Send + use<> {
        let port = free_port();
        let (inner, document) = match kind {
            Kind::Sdk(sdk) => {
                let run = Run::start(sdk, bed, login, "get_my_user_info", "{}", [1, 1]);
                let document = known_by.describe(run.redirect_uri());
                let key = matches!(known_by, KnownBy::Key(_)).then(|| key().to_string());
                let run = run.described(document.as_deref(), key.as_deref());
                (Inner::Sdk(Box::new(Held::start(run))), document)
            }
            Kind::McpRemote => {
                let document = known_by.describe(&format!("http://127.0.0.1:{port}/oauth/callback"));
                let remote = McpRemote::start(bed, login, port, document.as_deref());
                (Inner::McpRemote(Box::new(remote)), document)
            }
            Kind::Inspector => {
                let document = known_by.describe(&format!("http://127.0.0.1:{port}/oauth/callback"));
                (
                    Inner::Inspector(Inspector::new(bed, login, port, document.clone())),
                    document,
                )
            }
        };
        let mut client = Self {
            inner,
            login: login.to_owned(),
            document,
        };
        async move {
            match &mut client.inner {
                Inner::Sdk(held) => {
                    let texts = held.until_ready().await;
                    client.check(&texts);
                }
                Inner::McpRemote(remote) => {
                    remote.open().await;
                    client.call().await;
                }
                Inner::Inspector(_) => client.call().await,
            }
            client
        }
    }

    /// Calls the tool, as its user.
    pub(super) async fn call(&mut self) {
        let texts = match &mut self.inner {
            Inner::Sdk(held) => {
                held.order(&json!({ "call": true })).await;
                held.until_ready().await
            }
            Inner::McpRemote(remote) => vec![remote.call().await],
            Inner::Inspector(inspector) => vec![inspector.call().await],
        };
        self.check(&texts);
    }

    /// Ends it. Its user was asked once, and for the client that it is; a client that stays had one session.
    pub(super) async fn end(self) {
        let visits = match self.inner {
            Inner::Sdk(held) => {
                assert_eq!(held.sessions, 1, "it went on with its session");
                held.end().await
            }
            Inner::McpRemote(remote) => remote.end().await,
            Inner::Inspector(inspector) => inspector.visits,
        };
        assert_eq!(visits.len(), 1, "a person is asked once: {visits:?}");
        match self.document {
            Some(document) => assert_eq!(visits[0], document),
            None => assert!(!visits[0].starts_with("https:"), "{visits:?}"),
        }
    }

    fn check(&self, texts: &[String]) {
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert_eq!(login_in(&texts[0]), self.login);
    }
}

/// `mcp-remote`, between a host, which is this test, and the broker.
#[derive(Debug)]
struct McpRemote {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    asked: u64,
    visits: JoinHandle<Vec<String>>,
    _home: TempDir,
}

impl McpRemote {
    fn start(bed: &Bed, login: &str, port: u16, document: Option<&str>) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = Command::new("node");
        command
            .arg(root().join("interop/tools/node_modules/mcp-remote/dist/proxy.js"))
            .arg(bed.broker.mcp_url())
            .args([&port.to_string(), "--host", "127.0.0.1"])
            .args(document.into_iter().flat_map(|url| ["--client-metadata-url", url]))
            .env("MCP_REMOTE_CONFIG_DIR", home.path());
        let mut process = spawn(command, &home);
        Self {
            visits: visitor(process.stderr.take().unwrap(), bed.broker.url(), login, port),
            orders: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            asked: 0,
            _home: home,
        }
    }

    /// The handshake of a host.
    async fn open(&mut self) {
        let initialize = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "host", "version": "1" },
        });
        self.ask("initialize", initialize).await;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        say(&mut self.orders, &initialized).await;
    }

    async fn call(&mut self) -> String {
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

    async fn end(mut self) -> Vec<String> {
        drop(self.orders);
        self.process.kill().await.unwrap();
        self.visits.await.unwrap()
    }
}

/// The Inspector's command line.
#[derive(Debug)]
struct Inspector {
    broker: String,
    mcp_url: String,
    login: String,
    home: TempDir,
    port: u16,
    document: Option<String>,
    visits: Vec<String>,
}

impl Inspector {
    fn new(bed: &Bed, login: &str, port: u16, document: Option<String>) -> Self {
        Self {
            broker: bed.broker.url(),
            mcp_url: bed.broker.mcp_url(),
            login: login.to_owned(),
            home: TempDir::new().unwrap(),
            port,
            document,
            visits: Vec::new(),
        }
    }

    async fn call(&mut self) -> String {
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

/// For which client a person is asked.
fn client_in(authorize: &Url) -> String {
    let client = authorize.query_pairs().find(|(name, _)| name == "client_id");
    client.unwrap().1.into_owned()
}

async fn say(orders: &mut ChildStdin, message: &Value) {
    orders.write_all(format!("{message}\n").as_bytes()).await.unwrap();
}

/// A client of `interop/` that waits for orders between its rounds of calls.
#[derive(Debug)]
pub(super) struct Held {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    login: String,
    redirect_uri: String,
    /// For which client a person was asked, each time.
    visits: Vec<String>,
    /// How many sessions it has opened.
    sessions: usize,
}

impl Held {
    pub(super) fn start(run: Run) -> Self {
        let login = run.login().to_owned();
        let (mut command, redirect_uri) = run.held();
        let mut process = command.spawn().expect("cargo xtask interop installs the clients");
        Self {
            orders: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            login,
            redirect_uri,
            visits: Vec::new(),
            sessions: 0,
        }
    }

    pub(super) async fn order(&mut self, order: &Value) {
        say(&mut self.orders, order).await;
    }

    /// The texts of the calls up to the next `ready`.
    pub(super) async fn until_ready(&mut self) -> Vec<String> {
        timeout(LIMIT, self.listen("ready")).await.expect("the client goes on")
    }

    /// Ends it, and gives the clients for which a person was asked.
    pub(super) async fn end(mut self) -> Vec<String> {
        self.order(&json!({ "end": true })).await;
        timeout(LIMIT, self.listen("done"))
            .await
            .expect("the client comes to an end");
        assert!(self.process.wait().await.unwrap().success());
        self.visits
    }

    async fn listen(&mut self, until: &str) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            match event["event"].as_str().unwrap() {
                "authorize" => {
                    let url = event["url"].as_str().unwrap().parse().unwrap();
                    let redirect = Browser::new()
                        .authorize(&url, &self.login, &password(&self.login), &self.redirect_uri)
                        .await
                        .unwrap();
                    self.visits.push(client_in(&url));
                    self.order(&json!({ "redirect": redirect })).await;
                }
                "session" => self.sessions += 1,
                "result" => {
                    assert_eq!(event["isError"], false, "{event}");
                    texts.push(event["text"].as_str().unwrap_or_default().to_owned());
                }
                "error" => panic!("the client failed: {event}"),
                other if other == until => return texts,
                _ => {}
            }
        }
        panic!("the client ended before {until}");
    }
}
