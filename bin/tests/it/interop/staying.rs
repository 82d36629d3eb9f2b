//! Clients stay signed in: over the end of access tokens, over the end of Forgejo's tokens, over a restart of the broker. A person
//! is asked for once.
//!
//! The sessions themselves do not outlive a restart here, so that each client opens another one: of itself, or told to.

use std::{process::Stdio, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Browser, broker::free_port};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};
use url::Url;

use super::{
    conformance::node,
    sdk::{LIMIT, Run, Sdk, root},
};
use crate::bed::{Bed, login_in, password};

/// How long an access token lives here, as its client is told.
const ACCESS: Duration = Duration::from_secs(1);
/// How long it is honoured beyond that.
const GRACE: Duration = Duration::from_secs(60);
/// How long a token of Forgejo lives here. It is renewed at half of that.
const FORGEJO: Duration = Duration::from_secs(6);
/// How often everything ends.
const TIMES: u64 = 3;

/// A bed on which every token is short-lived.
async fn short_lived() -> Bed {
    let bed = Bed::new(&[
        ("oauth.access_token_ttl", "1s"),
        ("session.unknown_status", "404"),
        ("session.max_sessions_per_user", "100"),
    ])
    .await;
    bed.forgejo.set_lifetimes(FORGEJO, Duration::from_secs(3600));
    bed
}

/// Lets everything run out that a user has, and puts another broker in the place of this one.
async fn time_goes_by(bed: &mut Bed) {
    sleep(FORGEJO.max(ACCESS)).await;
    bed.broker.terminate().await.unwrap();
    bed.broker.start_again().await.unwrap();
}

/// Every renewal at Forgejo that was due has happened.
fn renewed(bed: &Bed) {
    let renewals = bed.forgejo.counters().refreshes;
    assert!(renewals >= TIMES, "{renewals} renewals at Forgejo");
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v1_stays_signed_in() {
    sdk_stays_signed_in(Sdk::TypescriptV1).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v2_stays_signed_in() {
    sdk_stays_signed_in(Sdk::TypescriptV2).await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn python_stays_signed_in() {
    sdk_stays_signed_in(Sdk::Python).await;
}

async fn sdk_stays_signed_in(sdk: Sdk) {
    let mut bed = short_lived().await;
    let mut client = Held::start(Run::start(sdk, &bed, "alice", "get_my_user_info", "{}", [1, 1]));
    let texts = client.until_ready().await;
    assert_eq!(texts.len(), 1);
    for _ in 0..TIMES {
        time_goes_by(&mut bed).await;
        client.order(&json!({ "reopen": true })).await;
        let texts = client.until_ready().await;
        assert_eq!(login_in(&texts[0]), "alice");
    }
    client.end().await;
    renewed(&bed);
}

/// How often the access token really runs out in `six_parallel_calls`, which takes a minute each time: once, or as
/// `EXPIRIES` says.
fn expiries() -> u64 {
    std::env::var("EXPIRIES").map_or(1, |times| times.parse().expect("a number"))
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn six_parallel_calls_with_one_expired_token_succeed_with_both_typescript_generations() {
    const CALLS: usize = 6;
    let bed = Bed::new(&[("oauth.access_token_ttl", "1s")]).await;
    let mut clients = [(Sdk::TypescriptV1, "alice"), (Sdk::TypescriptV2, "bob")].map(|(sdk, login)| {
        Held::start(Run::start(
            sdk,
            &bed,
            login,
            "test_echo",
            r#"{"call":"{call}"}"#,
            [1, CALLS],
        ))
    });
    for client in &mut clients {
        assert_eq!(client.until_ready().await.len(), CALLS);
    }
    for _ in 0..expiries() {
        sleep(ACCESS + GRACE + Duration::from_secs(1)).await;
        for client in &mut clients {
            client.order(&json!({ "call": true })).await;
            assert_eq!(client.until_ready().await.len(), CALLS);
        }
    }
    for client in clients {
        // A session is not closed by a token that has expired meanwhile: here it has not.
        client.end().await;
    }
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn mcp_remote_stays_signed_in() {
    let mut bed = short_lived().await;
    let home = TempDir::new().unwrap();
    let port = free_port();
    let mut command = Command::new("node");
    command
        .arg(root().join("interop/tools/node_modules/mcp-remote/dist/proxy.js"))
        .arg(bed.broker.mcp_url())
        .args([&port.to_string(), "--host", "127.0.0.1"])
        .env("MCP_REMOTE_CONFIG_DIR", home.path());
    let mut process = spawn(command, &home);
    let sign_in = visitor(process.stderr.take().unwrap(), &bed, port);
    let mut orders = process.stdin.take().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let initialize = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "host", "version": "1" },
    });
    ask(&mut orders, &mut lines, 0, "initialize", initialize).await;
    say(
        &mut orders,
        &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
    )
    .await;
    for time in 0..=TIMES {
        if time > 0 {
            time_goes_by(&mut bed).await;
        }
        let params = json!({ "name": "get_my_user_info", "arguments": {} });
        let answer = ask(&mut orders, &mut lines, time + 1, "tools/call", params).await;
        let text = answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(login_in(text), "alice");
    }
    drop(orders);
    process.kill().await.unwrap();
    assert_eq!(sign_in.await.unwrap(), 1, "a person is asked once");
    renewed(&bed);
}

/// The Inspector's command line: a process for each call, which keeps its sign-in in a file.
#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn the_inspector_stays_signed_in() {
    let mut bed = short_lived().await;
    let home = TempDir::new().unwrap();
    let port = free_port();
    let mut visits = 0;
    for time in 0..=TIMES {
        if time > 0 {
            time_goes_by(&mut bed).await;
        }
        let inspector =
            root().join("interop/tools/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
        let mut command = Command::new(node(&root().join("interop/conformance")));
        command
            .arg(inspector)
            .arg("--cli")
            .args(["--server-url", &bed.broker.mcp_url(), "--method", "tools/call"])
            .args(["--tool-name", "get_my_user_info", "--format", "json"])
            .args(["--callback-url", &format!("http://127.0.0.1:{port}/oauth/callback")])
            .env("MCP_STORAGE_DIR", home.path())
            .env("MCP_INSPECTOR_SECRET_STORE", "file")
            // It would not ask a person otherwise, without a terminal.
            .env("MCP_AUTO_OPEN_ENABLED", "true");
        let mut process = spawn(command, &home);
        let sign_in = visitor(process.stderr.take().unwrap(), &bed, port);
        let output = timeout(LIMIT, process.wait_with_output())
            .await
            .expect("the Inspector comes to an end")
            .unwrap();
        visits += sign_in.await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        let result = answer.get("result").unwrap_or(&answer);
        let text = result["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{said}"));
        assert_eq!(login_in(text), "alice");
    }
    assert_eq!(visits, 1, "a person is asked once");
    renewed(&bed);
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

/// Watches a program's standard error for addresses that a person has to visit, and visits them as alice. Gives their number.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the program, whose standard error it reads, and every caller awaits it"
)]
fn visitor(stderr: impl AsyncRead + Send + Unpin + 'static, bed: &Bed, port: u16) -> JoinHandle<u32> {
    let authorize = format!("{}/oauth/authorize?", bed.broker.url());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        let mut visits = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            let Some(at) = line.find(&authorize) else {
                continue;
            };
            let url: Url = line[at..].trim().parse().unwrap();
            let mut browser = Browser::new();
            let back = format!("http://127.0.0.1:{port}/");
            let back = browser
                .authorize(&url, "alice", &password("alice"), &back)
                .await
                .unwrap();
            // The program listens there.
            assert_eq!(browser.get(&back).await.unwrap().status, StatusCode::OK);
            visits += 1;
        }
        visits
    })
}

async fn say(orders: &mut ChildStdin, message: &Value) {
    orders.write_all(format!("{message}\n").as_bytes()).await.unwrap();
}

/// Asks over standard streams, as a host does, and waits for the answer.
async fn ask(
    orders: &mut ChildStdin,
    lines: &mut Lines<BufReader<ChildStdout>>,
    id: u64,
    method: &str,
    params: Value,
) -> Value {
    say(
        orders,
        &json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }),
    )
    .await;
    let answer = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the program goes on");
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
        }
    };
    timeout(LIMIT, answer)
        .await
        .unwrap_or_else(|_| panic!("{method} was never answered"))
}

/// A client of `interop/` that waits for orders between its rounds of calls, and whose user signs in once.
struct Held {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    login: String,
    redirect_uri: String,
    visits: u32,
}

impl Held {
    fn start(run: Run) -> Self {
        let login = run.login().to_owned();
        let (mut command, redirect_uri) = run.held();
        let mut process = command.spawn().expect("cargo xtask interop installs the clients");
        Self {
            orders: process.stdin.take().unwrap(),
            lines: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            login,
            redirect_uri,
            visits: 0,
        }
    }

    async fn order(&mut self, order: &Value) {
        say(&mut self.orders, order).await;
    }

    /// The texts of the calls up to the next `ready`.
    async fn until_ready(&mut self) -> Vec<String> {
        timeout(LIMIT, self.listen("ready")).await.expect("the client goes on")
    }

    async fn end(mut self) {
        self.order(&json!({ "end": true })).await;
        timeout(LIMIT, self.listen("done"))
            .await
            .expect("the client comes to an end");
        assert!(self.process.wait().await.unwrap().success());
        assert_eq!(self.visits, 1, "a person is asked once");
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
                    self.visits += 1;
                    self.order(&json!({ "redirect": redirect })).await;
                }
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
