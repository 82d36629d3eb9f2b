//! What every end-to-end test stands on: a fake Forgejo, and a broker in front of it.

use serde_json::{Value, json};
use testkit::{
    Browser, Client, FakeForgejo,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, redirect_uri},
    forgejo::Options,
};

/// A fake Forgejo and a broker. Both end when it is dropped.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) forgejo: FakeForgejo,
    pub(crate) broker: BrokerProcess,
}

impl Bed {
    /// The usual bed: doubles of `forgejo-mcp` as children.
    pub(crate) async fn new(settings: &[(&str, &str)]) -> Self {
        let child = ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools();
        Self::with_child(child, settings).await
    }

    /// A bed with another MCP server, and settings of the broker by their dotted keys.
    pub(crate) async fn with_child(child: ChildCommand, settings: &[(&str, &str)]) -> Self {
        Self::start(child, settings, false).await
    }

    /// A bed whose broker can be restarted without a connection being refused.
    pub(crate) async fn with_kept_socket(settings: &[(&str, &str)]) -> Self {
        let child = ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools();
        Self::start(child, settings, true).await
    }

    async fn start(child: ChildCommand, settings: &[(&str, &str)], keep_socket: bool) -> Self {
        let port = free_port();
        let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(port)))
            .await
            .unwrap();
        let settings = settings
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let options = BrokerOptions {
            port,
            child,
            settings,
            keep_socket,
        };
        let broker = BrokerProcess::start(&programs().broker, &forgejo, options)
            .await
            .unwrap();
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
