//! The set-up that end-to-end tests share: a fake Forgejo, and a broker in front of it.

pub(crate) mod messages;
pub(crate) mod raw_http;

use std::{path::Path, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{
    Browser, Client, FakeForgejo, Forwarder,
    broker::{
        BrokerOptions, BrokerProcess, ChildCommand, Process, SharedMcp, free_port, programs, public_url, redirect_uri,
    },
    client::Answer,
    forgejo::Options,
    forgejo_mcp::{Script, ScriptFile},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// The deadline of a wait: longer than any event takes on a slow machine.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Settings with which a session is idle after one second.
pub(crate) const SHORT_IDLE_TIMEOUT: [(&str, &str); 2] =
    [("session.idle_timeout", "1s"), ("session.reap_interval", "100ms")];

/// Forgejo's token endpoint.
pub(crate) const FORGEJO_TOKEN_ENDPOINT: &str = "/login/oauth/access_token";

/// A fake Forgejo and a broker. Both stop when it is dropped.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) forgejo: FakeForgejo,
    pub(crate) broker: BrokerProcess,
}

impl Harness {
    /// The usual harness: its children are fakes of `forgejo-mcp`. Settings are dotted
    /// configuration keys.
    pub(crate) async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with_child(fake_forgejo_mcp(), settings).await
    }

    /// A harness with another MCP server.
    pub(crate) async fn with_child(child: ChildCommand, settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        Self::start(port, options(port, child, settings)).await
    }

    /// A harness whose children follow a script, which the test can change between two starts.
    pub(crate) async fn with_script(script: &Script, settings: &[(&str, &str)]) -> (Self, ScriptFile) {
        let file = ScriptFile::new(script).unwrap();
        let directory = file.directory().display().to_string();
        let settings = [&[("child.isolation.readable", directory.as_str())], settings].concat();
        let child = fake_forgejo_mcp().with_script(&file);
        (Self::with_child(child, &settings).await, file)
    }

    /// A harness whose sessions share one MCP server. A strict server checks tokens and accepts
    /// only session ids that it issued.
    pub(crate) async fn with_shared_mcp(strict: bool, settings: &[(&str, &str)]) -> (Self, SharedMcp) {
        Self::with_shared_mcp_of_era("legacy", strict, settings).await
    }

    /// As [`with_shared_mcp`](Self::with_shared_mcp), for a server of an era.
    pub(crate) async fn with_shared_mcp_of_era(
        era: &'static str,
        strict: bool,
        settings: &[(&str, &str)],
    ) -> (Self, SharedMcp) {
        let port = free_port();
        let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(port)))
            .await
            .unwrap();
        let program = programs().fake_forgejo_mcp.clone();
        let shared = SharedMcp::start(program, &forgejo, free_port(), strict, era)
            .await
            .unwrap();
        let url = shared.url();
        let mut all = vec![("child.mode", "http"), ("child.upstream.url", &url)];
        all.extend_from_slice(settings);
        let mut options = options(port, ChildCommand::plain(&programs().fake_forgejo_mcp), &all);
        // There is no child.
        options.child = None;
        options
            .settings
            .retain(|(key, era)| key != "child.era" || era != "legacy");
        let broker = BrokerProcess::start(&programs().broker, &forgejo, options)
            .await
            .unwrap();
        (Self { forgejo, broker }, shared)
    }

    /// A harness whose broker can restart without refusing a connection.
    pub(crate) async fn with_persistent_socket(settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let options = BrokerOptions {
            keep_socket: true,
            ..options(port, fake_forgejo_mcp(), settings)
        };
        Self::start(port, options).await
    }

    /// A harness whose broker gets additional environment variables.
    pub(crate) async fn with_environment(environment: Vec<(String, String)>, settings: &[(&str, &str)]) -> Self {
        Self::with_program(&programs().broker, environment, settings).await
    }

    /// A harness that runs another program as the broker, with additional environment variables.
    pub(crate) async fn with_program(
        program: &Path,
        environment: Vec<(String, String)>,
        settings: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let options = BrokerOptions {
            environment,
            ..options(port, fake_forgejo_mcp(), settings)
        };
        Self::start_program(program, port, options).await
    }

    /// A harness whose broker is behind a forwarder that cuts the responses of one tool.
    pub(crate) async fn behind_forwarder(child: ChildCommand, cut_tool: &str) -> (Self, Forwarder) {
        let (port, front) = (free_port(), free_port());
        let forwarder = Forwarder::start(front, port, Some(cut_tool)).await.unwrap();
        let options = options(port, child, &[("server.public_url", &public_url(front))]);
        (Self::start(front, options).await, forwarder)
    }

    /// A harness whose broker is behind a forwarder that records requests, and can restart without
    /// refusing a connection.
    pub(crate) async fn behind_recorder(settings: &[(&str, &str)]) -> (Self, Forwarder) {
        let (port, front) = (free_port(), free_port());
        let forwarder = Forwarder::start(front, port, None).await.unwrap();
        let public_url = public_url(front);
        let settings = [&[("server.public_url", public_url.as_str())], settings].concat();
        let options = BrokerOptions {
            keep_socket: true,
            ..options(port, fake_forgejo_mcp(), &settings)
        };
        (Self::start(front, options).await, forwarder)
    }

    /// Starts a broker whose public URL has the port `public`.
    async fn start(public: u16, options: BrokerOptions) -> Self {
        Self::start_program(&programs().broker, public, options).await
    }

    async fn start_program(program: &Path, public: u16, options: BrokerOptions) -> Self {
        let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(public)))
            .await
            .unwrap();
        let broker = BrokerProcess::start(program, &forgejo, options).await.unwrap();
        Self { forgejo, broker }
    }

    /// A client that is not signed in.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.broker.mcp_url().parse().unwrap())
    }

    /// A client that this user of the fake Forgejo has signed in, without a session.
    pub(crate) async fn signed_in(&self, login: &str) -> Client {
        let client = self.client();
        sign_in(&client, login).await;
        client
    }

    /// Another client than those of [`client`](Self::client), signed in: another grant of the user.
    pub(crate) async fn other_client(&self, login: &str) -> Client {
        let client = self.client().with_redirect_uri("http://127.0.0.1:33418/other");
        sign_in(&client, login).await;
        client
    }

    /// A client that is signed in and has a session.
    pub(crate) async fn in_session(&self, login: &str) -> Client {
        let client = self.signed_in(login).await;
        open_session(&client).await;
        client
    }

    /// Stops the broker in order and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.broker.terminate().await.unwrap();
        self.broker.start_again().await.unwrap();
    }

    /// Kills the broker and starts it again.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.broker.kill().await.unwrap();
        self.broker.start_again().await.unwrap();
    }

    /// The broker's child, of which there must be exactly one.
    pub(crate) fn only_child(&self) -> Process {
        let children = self.broker.children().unwrap();
        assert_eq!(children.len(), 1);
        children[0]
    }

    /// Waits until the broker has exactly `count` children: replaced ones may still be exiting.
    pub(crate) async fn wait_for_children(&self, count: usize) -> Vec<Process> {
        let wait = timeout(WAIT_LIMIT, async {
            loop {
                let children = self.broker.children().unwrap();
                if children.len() == count {
                    return children;
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
        wait.await
            .unwrap_or_else(|_| panic!("there are never {count} children"))
    }
}

/// The era is given, unless a test gives another one: a process that is asked for it would be one
/// more child than a test counts.
fn options(port: u16, child: ChildCommand, settings: &[(&str, &str)]) -> BrokerOptions {
    let settings = [&[("child.era", "legacy")], settings].concat();
    let settings = settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
    BrokerOptions {
        port,
        child: Some(child),
        settings: settings.collect(),
        environment: vec![],
        keep_socket: false,
    }
}

/// The fake of `forgejo-mcp`, with the tools that only tests call.
pub(crate) fn fake_forgejo_mcp() -> ChildCommand {
    ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools()
}

/// The server with the fixtures of the conformance suite.
pub(crate) fn conformance_mcp() -> ChildCommand {
    ChildCommand::plain(&programs().conformance_mcp)
}

/// The password of a demo user.
pub(crate) fn password(login: &str) -> String {
    format!("{login}-password")
}

/// Signs the client in as this user, with a new browser.
pub(crate) async fn sign_in(client: &Client, login: &str) {
    client
        .sign_in(&mut Browser::new(), login, &password(login))
        .await
        .unwrap();
}

/// Opens a session: `initialize`, then `notifications/initialized`.
pub(crate) async fn open_session(client: &Client) {
    client.initialize().await.unwrap();
    client.initialized().await.unwrap();
}

/// The user whose Forgejo token the session's MCP server has, according to Forgejo.
pub(crate) async fn login_of(client: &Client) -> String {
    let result = client.call_tool("get_my_user_info", json!({})).await.unwrap();
    login_in(result["content"][0]["text"].as_str().unwrap())
}

/// The login in the text that `get_my_user_info` returns.
pub(crate) fn login_in(text: &str) -> String {
    let user: Value = serde_json::from_str(text).unwrap();
    let login = user
        .get("login")
        .or_else(|| user["Result"].get("login"))
        .and_then(Value::as_str);
    login.unwrap_or_else(|| panic!("no login in {text}")).to_owned()
}

/// Checks that the client's access token is not valid.
pub(crate) async fn assert_unauthorized(client: &Client) {
    let (answer, _) = client.request("ping", json!({})).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
}

/// Sends a call that ends only with its child, and returns once the child has received it. The task
/// returns the answer, the request id and the client.
pub(crate) async fn start_endless_call(harness: &Harness, session: Client) -> JoinSet<(Answer, Value, Client)> {
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let params = json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } });
        let (answer, id) = session.request("tools/call", params).await.unwrap();
        (answer, id, session)
    });
    // The child writes this line. The broker's own log may name the tool before the child has
    // received the call.
    harness.broker.log().contains("tool=test_sleep").await;
    calls
}
