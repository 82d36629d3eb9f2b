//! A common interface of all clients: each signs its user in once and calls a tool on demand.
//!
//! The clients of `interop/` keep one session. So does `mcp-remote`, between a host and the broker.
//! The Inspector's command line is a new process for each call, and keeps its sign-in in a file.

use serde_json::{Value, json};
use testkit::{Host, broker::free_port};
use url::Url;

use super::{
    scripted_client::ScriptedClient,
    sdk_client::{Run, SDKS, Sdk},
    third_party_clients::{Inspector, McpRemote},
};
use crate::harness::{Harness, login_in};

/// All kinds of clients, in the order of the tests.
pub(super) const CLIENTS: [ClientKind; 6] = [
    ClientKind::Sdk(SDKS[0]),
    ClientKind::Sdk(SDKS[1]),
    ClientKind::Sdk(SDKS[2]),
    ClientKind::Sdk(SDKS[3]),
    ClientKind::McpRemote,
    ClientKind::Inspector,
];

#[derive(Clone, Copy, Debug)]
pub(super) enum ClientKind {
    Sdk(Sdk),
    McpRemote,
    Inspector,
}

/// The way in which the broker learns the metadata of a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientIdentity<'h> {
    /// The client registers itself (RFC 7591).
    Registration,
    /// A metadata document on this host, for a public client.
    Document(&'h Host),
    /// A metadata document on this host with a public key, for a client that signs assertions.
    DocumentWithKey(&'h Host),
}

/// A client whose user has signed in.
#[derive(Debug)]
pub(super) struct Client {
    program: Program,
    login: String,
    /// The URL of its metadata document.
    document: Option<String>,
}

#[derive(Debug)]
enum Program {
    Sdk(Box<ScriptedClient>),
    McpRemote(Box<McpRemote>),
    Inspector(Inspector),
}

/// The key of a client: the published example of RFC 7515 appendix A.3.1.
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

impl ClientIdentity<'_> {
    /// Publishes the metadata document of a client and returns its URL.
    fn publish_document(self, redirect_uri: &str) -> Option<String> {
        let (host, jwks) = match self {
            Self::Registration => return None,
            Self::Document(host) => (host, None),
            Self::DocumentWithKey(host) => (host, Some(json!({ "keys": [public(key())] }))),
        };
        // Each client has its own port in its redirect URI.
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
        kind: ClientKind,
        harness: &Harness,
        login: &str,
        identity: ClientIdentity<'_>,
    ) -> impl Future<Output = Self> + Send + use<> {
        let port = free_port();
        let callback = format!("http://127.0.0.1:{port}/oauth/callback");
        let (program, document) = match kind {
            ClientKind::Sdk(sdk) => {
                let run = Run::tool_calls(sdk, harness, login, "get_my_user_info", "{}", [1, 1]);
                let document = identity.publish_document(run.redirect_uri());
                let signs = matches!(identity, ClientIdentity::DocumentWithKey(_));
                let key = signs.then(|| key().to_string());
                let run = run.with_metadata_document(document.as_deref(), key.as_deref());
                (Program::Sdk(Box::new(ScriptedClient::start(run))), document)
            }
            ClientKind::McpRemote => {
                let document = identity.publish_document(&callback);
                let remote = McpRemote::start(&harness.broker.url(), login, port, document.as_deref());
                (Program::McpRemote(Box::new(remote)), document)
            }
            ClientKind::Inspector => {
                let document = identity.publish_document(&callback);
                let inspector = Inspector::new(&harness.broker.url(), login, port, document.clone());
                (Program::Inspector(inspector), document)
            }
        };
        let mut client = Self {
            program,
            login: login.to_owned(),
            document,
        };
        async move {
            match &mut client.program {
                Program::Sdk(sdk_client) => {
                    let texts = sdk_client.until_ready().await;
                    client.check(&texts);
                }
                Program::McpRemote(remote) => {
                    remote.open().await;
                    client.call().await;
                }
                Program::Inspector(_) => client.call().await,
            }
            client
        }
    }

    /// Calls the tool and checks that the answer is for its user.
    pub(super) async fn call(&mut self) {
        let texts = match &mut self.program {
            Program::Sdk(sdk_client) => {
                sdk_client.start_calls().await;
                sdk_client.until_ready().await
            }
            Program::McpRemote(remote) => vec![remote.call().await],
            Program::Inspector(inspector) => vec![inspector.call().await],
        };
        self.check(&texts);
    }

    /// Ends it. Checks that its user was asked once, and for this client, and that an SDK client
    /// used one session.
    pub(super) async fn end(self) {
        let authorizations = match self.program {
            Program::Sdk(sdk_client) => {
                assert_eq!(sdk_client.sessions, 1, "the client opened another session");
                sdk_client.end().await
            }
            Program::McpRemote(remote) => remote.end().await,
            Program::Inspector(inspector) => inspector.authorizations,
        };
        assert_eq!(
            authorizations.len(),
            1,
            "the user must be asked exactly once: {authorizations:?}"
        );
        match self.document {
            Some(document) => assert_eq!(authorizations[0], document),
            None => assert!(!authorizations[0].starts_with("https:"), "{authorizations:?}"),
        }
    }

    fn check(&self, texts: &[String]) {
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert_eq!(login_in(&texts[0]), self.login);
    }
}
