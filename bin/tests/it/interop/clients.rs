//! Every client behind one face: it signs a user in, once, and calls a tool as often as it is told to.
//!
//! The clients of `interop/` stay with one session. `mcp-remote` stays too, between a host and the broker. The Inspector's
//! command line is another process for each call, and keeps its sign-in in a file.

use serde_json::{Value, json};
use testkit::{Host, broker::free_port};
use url::Url;

use super::{
    scripted_client::ScriptedClient,
    sdk_client::{Run, SDKS, Sdk},
    tools::{Inspector, McpRemote},
};
use crate::harness::{Harness, login_in};

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
    Sdk(Box<ScriptedClient>),
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
        harness: &Harness,
        login: &str,
        known_by: KnownBy<'_>,
    ) -> impl Future<Output = Self> + Send + use<> {
        let port = free_port();
        let (inner, document) = match kind {
            Kind::Sdk(sdk) => {
                let run = Run::start(sdk, harness, login, "get_my_user_info", "{}", [1, 1]);
                let document = known_by.describe(run.redirect_uri());
                let key = matches!(known_by, KnownBy::Key(_)).then(|| key().to_string());
                let run = run.described(document.as_deref(), key.as_deref());
                (Inner::Sdk(Box::new(ScriptedClient::start(run))), document)
            }
            Kind::McpRemote => {
                let document = known_by.describe(&format!("http://127.0.0.1:{port}/oauth/callback"));
                let remote = McpRemote::start(harness, login, port, document.as_deref());
                (Inner::McpRemote(Box::new(remote)), document)
            }
            Kind::Inspector => {
                let document = known_by.describe(&format!("http://127.0.0.1:{port}/oauth/callback"));
                (
                    Inner::Inspector(Inspector::new(harness, login, port, document.clone())),
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
