//! What every end-to-end test stands on: a fake Forgejo, and a broker in front of it.

use std::path::Path;

use serde_json::{Value, json};
use testkit::{
    Browser, Client, FakeForgejo, Forwarder,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, SharedMcp, free_port, programs, public_url, redirect_uri},
    forgejo::Options,
};

/// A fake Forgejo and a broker. Both end when it is dropped.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) forgejo: FakeForgejo,
    pub(crate) broker: BrokerProcess,
}

impl Harness {
    /// The usual harness: doubles of `forgejo-mcp` as children.
    pub(crate) async fn new(settings: &[(&str, &str)]) -> Self {
        let child = ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools();
        Self::with_child(child, settings).await
    }

    /// A harness with another MCP server, and settings of the broker by their dotted keys.
    pub(crate) async fn with_child(child: ChildCommand, settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        Self::start(port, options(port, child, settings)).await
    }

    /// A harness whose sessions share one MCP server. A strict one checks tokens and knows only sessions of its own.
    pub(crate) async fn with_shared_mcp(strict: bool, settings: &[(&str, &str)]) -> (Self, SharedMcp) {
        let port = free_port();
        let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(port)))
            .await
            .unwrap();
        let program = programs().fake_forgejo_mcp.clone();
        let shared = SharedMcp::start(program, &forgejo, free_port(), strict).await.unwrap();
        let url = shared.url();
        let mut all = vec![("child.mode", "http"), ("child.upstream.url", &url)];
        all.extend_from_slice(settings);
        let options = BrokerOptions {
            child: None,
            ..options(port, ChildCommand::plain(&programs().fake_forgejo_mcp), &all)
        };
        let broker = BrokerProcess::start(&programs().broker, &forgejo, options)
            .await
            .unwrap();
        (Self { forgejo, broker }, shared)
    }

    /// A harness whose broker can be restarted without a connection being refused.
    pub(crate) async fn with_kept_socket(settings: &[(&str, &str)]) -> Self {
        let child = ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools();
        let port = free_port();
        let options = BrokerOptions {
            keep_socket: true,
            ..options(port, child, settings)
        };
        Self::start(port, options).await
    }

    /// A harness whose broker has switches of tests in its environment.
    pub(crate) async fn with_switches(switches: Vec<(String, String)>, settings: &[(&str, &str)]) -> Self {
        Self::of_program(&programs().broker, switches, settings).await
    }

    /// The same with another program in the place of the broker.
    pub(crate) async fn of_program(program: &Path, switches: Vec<(String, String)>, settings: &[(&str, &str)]) -> Self {
        let child = ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools();
        let port = free_port();
        let options = BrokerOptions {
            environment: switches,
            ..options(port, child, settings)
        };
        Self::start_program(program, port, options).await
    }

    /// A harness whose broker is reached through a forwarder, which cuts the streams that this tool answers with.
    pub(crate) async fn behind_forwarder(child: ChildCommand, cut: &str) -> (Self, Forwarder) {
        let (port, front) = (free_port(), free_port());
        let forwarder = Forwarder::start(front, port, Some(cut)).await.unwrap();
        let options = options(port, child, &[("server.public_url", &public_url(front))]);
        (Self::start(front, options).await, forwarder)
    }

    /// Starts a broker that the world knows at the port `public`.
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

    /// A client that nobody has signed in.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.broker.mcp_url().parse().unwrap())
    }

    /// A client that this user of the fake Forgejo has signed in, without a session.
    pub(crate) async fn signed_in(&self, login: &str) -> Client {
        let client = self.client();
        client
            .sign_in(&mut Browser::new(), login, &password(login))
            .await
            .unwrap();
        client
    }

    /// A client with a session.
    pub(crate) async fn in_session(&self, login: &str) -> Client {
        let client = self.signed_in(login).await;
        open(&client).await;
        client
    }
}

fn options(port: u16, child: ChildCommand, settings: &[(&str, &str)]) -> BrokerOptions {
    let settings = settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
    BrokerOptions {
        port,
        child: Some(child),
        settings: settings.collect(),
        environment: vec![],
        keep_socket: false,
    }
}

/// The password of a demo user.
pub(crate) fn password(login: &str) -> String {
    format!("{login}-password")
}

/// Opens a session.
pub(crate) async fn open(client: &Client) {
    client.initialize().await.unwrap();
    client.initialized().await.unwrap();
}

/// Whose Forgejo token the session's child holds, as Forgejo says.
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
