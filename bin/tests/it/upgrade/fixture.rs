//! A fixture: the database of a broker that has been killed, and the values with which its clients
//! and its Forgejo go on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::{
    Client, FakeForgejo,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, redirect_uri},
    forgejo::{Options, SavedState},
};

use super::database::Database;
use crate::harness::{SHORT_IDLE_TIMEOUT, fake_forgejo_mcp, login_of, open_session, sign_in};

/// The protocol revision of the sessions.
pub(super) const PROTOCOL: &str = "2025-11-25";
/// A resource of the conformance server, to which the sessions with settings are subscribed.
pub(super) const SUBSCRIBED: &str = "test://watched-resource";

const VALUES: &str = "values.json";
const DATABASE: &str = "broker.db";
const KEY: &str = "broker.key";

/// What the clients and Forgejo hold. All of it is made up for the test.
#[derive(Serialize, Deserialize)]
pub(super) struct Fixture {
    pub(super) forgejo: SavedState,
    /// A public client.
    pub(super) alice: SavedClient,
    /// A client with a secret.
    pub(super) bob: SavedClient,
    /// Sessions with the subscription and the log level `error`, at the conformance server.
    pub(super) with_settings: Vec<SavedSession>,
    /// A session of alice at `forgejo-mcp`, that was dormant for a restart.
    pub(super) at_forgejo: String,
    /// A session of bob, that he has ended.
    pub(super) ended: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SavedClient {
    id: String,
    secret: Option<String>,
    pub(super) access_token: String,
    pub(super) refresh_token: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SavedSession {
    pub(super) login: String,
    /// Its state when the broker was killed.
    pub(super) state: String,
    pub(super) id: String,
}

/// A broker on a copy of a fixture, with a Forgejo that knows its accounts.
pub(super) struct Restored {
    pub(super) forgejo: FakeForgejo,
    pub(super) broker: BrokerProcess,
    pub(super) fixture: Fixture,
    _directory: tempfile::TempDir,
}

/// The fixtures of earlier releases.
pub(super) fn all() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Lets a broker write a database, by real sign-ins and real sessions, kills it, and keeps the
/// database in this directory with the values for a test.
pub(super) async fn make(program: &Path, directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let port = free_port();
    let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(port)))
        .await
        .unwrap();
    let options = options(port, fake_forgejo_mcp(), directory);
    let mut broker = BrokerProcess::start(program, &forgejo, options).await.unwrap();
    let database = Database::at(&directory.join(DATABASE));

    let alice = Client::new(broker.mcp_url().parse().unwrap());
    sign_in(&alice, "alice").await;
    let bob = Client::new(broker.mcp_url().parse().unwrap());
    let bob_secret = register_with_secret(&broker, &bob).await;
    sign_in(&bob, "bob").await;
    let at_forgejo = alice.another_session();
    open_session(&at_forgejo).await;
    assert_eq!(login_of(&at_forgejo).await, "alice");
    broker.terminate().await.unwrap();

    // A session of bob becomes dormant, and another ends.
    let conformance = ChildCommand::plain(&programs().conformance_mcp);
    broker.configure(&SHORT_IDLE_TIMEOUT, Some(conformance));
    broker.start_again().await.unwrap();
    let idle = bob.another_session();
    open_with_settings(&database, &idle).await;
    for child in broker.children().unwrap() {
        child.exited().await.unwrap();
    }
    let ended = bob.another_session();
    open_session(&ended).await;
    let ended_id = ended.session_id().unwrap();
    ended.delete().await.unwrap();
    broker.terminate().await.unwrap();

    // A session of alice has a child when the broker is killed.
    broker.unset(&SHORT_IDLE_TIMEOUT.map(|(key, _)| key));
    broker.start_again().await.unwrap();
    let open = alice.another_session();
    open_with_settings(&database, &open).await;
    assert_eq!(broker.children().unwrap().len(), 1);
    broker.kill().await.unwrap();

    let session = |client: &Client, login: &str, state: &str| SavedSession {
        login: login.to_owned(),
        state: state.to_owned(),
        id: client.session_id().unwrap(),
    };
    let fixture = Fixture {
        forgejo: forgejo.save(),
        alice: SavedClient::of(&alice, None),
        bob: SavedClient::of(&bob, Some(bob_secret)),
        with_settings: vec![session(&open, "alice", "open"), session(&idle, "bob", "dormant")],
        at_forgejo: at_forgejo.session_id().unwrap(),
        ended: ended_id,
    };
    database.into_one_file().await;
    fs::remove_file(directory.join(format!("{DATABASE}-lock"))).unwrap();
    let values = serde_json::to_string_pretty(&fixture).unwrap() + "\n";
    fs::write(directory.join(VALUES), values).unwrap();
}

/// Opens a session and waits until the record has what its client has set.
async fn open_with_settings(database: &Database, session: &Client) {
    let before = database.records().await;
    open_session(session).await;
    let opened = database.wait_for_more_than(before).await;
    for (method, params) in [
        ("logging/setLevel", json!({ "level": "error" })),
        ("resources/subscribe", json!({ "uri": SUBSCRIBED })),
    ] {
        let (answer, id) = session.request(method, params).await.unwrap();
        assert!(answer.response_to(&id).unwrap()["result"].is_object(), "{method}");
    }
    database.wait_for_more_than(opened).await;
}

/// Registers a client with a secret (RFC 7591), and returns the secret.
async fn register_with_secret(broker: &BrokerProcess, client: &Client) -> String {
    let endpoint = Client::new(format!("{}/oauth/register", broker.url()).parse().unwrap());
    let metadata = json!({
        "client_name": "client with a secret",
        "redirect_uris": [client.redirect_uri()],
        "token_endpoint_auth_method": "client_secret_post",
    });
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let answer = endpoint.raw(Method::POST, headers, metadata.to_string()).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let body: Value = answer.json();
    let secret = body["client_secret"].as_str().unwrap();
    client.set_client(body["client_id"].as_str().unwrap(), Some(secret));
    secret.to_owned()
}

impl Restored {
    /// Opens a copy of the fixture as it was so many seconds after it was made. The copy is aged:
    /// its times, and Forgejo's clock, are moved by the time that has passed since, so that the
    /// test means the same in every year.
    pub(super) async fn open(program: &Path, source: &Path, child: ChildCommand, later: i64) -> Self {
        let fixture = fs::read_to_string(source.join(VALUES)).unwrap();
        let fixture: Fixture = serde_json::from_str(&fixture).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for name in [DATABASE, KEY] {
            let copy = directory.path().join(name);
            fs::copy(source.join(name), &copy).unwrap();
            // As the broker made them; Git does not keep it.
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let port = free_port();
        let mut forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(port)))
            .await
            .unwrap();
        let shift = forgejo.restore(&fixture.forgejo, later);
        Database::at(&directory.path().join(DATABASE)).shift_times(shift).await;
        let options = options(port, child, directory.path());
        let broker = BrokerProcess::start(program, &forgejo, options).await.unwrap();
        Self {
            forgejo,
            broker,
            fixture,
            _directory: directory,
        }
    }

    /// The client of a user as it was, in a session that it had.
    pub(super) fn client(&self, login: &str, session: &str) -> Client {
        let saved = match login {
            "alice" => &self.fixture.alice,
            _ => &self.fixture.bob,
        };
        let client = Client::new(self.broker.mcp_url().parse().unwrap());
        client.set_client(&saved.id, saved.secret.as_deref());
        client.set_access_token(Some(&saved.access_token));
        client.set_refresh_token(Some(&saved.refresh_token));
        client.resume_session(session, PROTOCOL);
        client
    }
}

impl SavedClient {
    fn of(client: &Client, secret: Option<String>) -> Self {
        Self {
            id: client.client_id().unwrap(),
            secret,
            access_token: client.access_token().unwrap(),
            refresh_token: client.refresh_token().unwrap(),
        }
    }
}

fn options(port: u16, child: ChildCommand, directory: &Path) -> BrokerOptions {
    let file = |name: &str| directory.join(name).display().to_string();
    BrokerOptions {
        port,
        child: Some(child),
        settings: vec![
            ("store.path".to_owned(), file(DATABASE)),
            ("store.key_file".to_owned(), file(KEY)),
        ],
        ..BrokerOptions::default()
    }
}
