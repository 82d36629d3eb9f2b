//! Two brokers on one store, as during a takeover: no user loses access unless they revoke it.

use std::{path::Path, time::Duration};

use http::StatusCode;
use tempfile::TempDir;
use testkit::{
    Client, FakeForgejo,
    broker::{BrokerOptions, BrokerProcess, free_port, programs, redirect_uri},
    forgejo::{Fault, Options, Times},
    http_client,
};
use url::form_urlencoded;

use crate::harness::{FORGEJO_TOKEN_ENDPOINT, assert_unauthorized, fake_forgejo_mcp, login_of, open_session, sign_in};

/// The advertised lifetime of a Forgejo token: shorter than a test, so that the broker renews it
/// again and again. It stays valid longer, so that a renewal that a slow machine delays still
/// succeeds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(2);

/// The log message of a broker that waits for another process at its start.
const WAITING_MESSAGE: &str = "waiting for another process to migrate the database";

/// A Forgejo and two brokers on one store.
struct TwoBrokers {
    forgejo: FakeForgejo,
    brokers: [BrokerProcess; 2],
}

impl TwoBrokers {
    async fn new() -> Self {
        let (forgejo, ports) = forgejo_for_two().await;
        let one = start(&forgejo, ports[0], vec![]).await;
        let two = start(&forgejo, ports[1], store_settings(one.directory())).await;
        Self {
            forgejo,
            brokers: [one, two],
        }
    }

    /// Two brokers that start at the same time on a new store.
    async fn start_together(directory: &Path) -> Self {
        let (forgejo, ports) = forgejo_for_two().await;
        let brokers = tokio::join!(
            start(&forgejo, ports[0], store_settings(directory)),
            start(&forgejo, ports[1], store_settings(directory))
        );
        Self {
            forgejo,
            brokers: brokers.into(),
        }
    }

    async fn signed_in(&self, broker: usize, login: &str) -> Client {
        let client = Client::new(self.brokers[broker].mcp_url().parse().unwrap());
        sign_in(&client, login).await;
        client
    }
}

/// A Forgejo that knows the redirect URIs of two brokers, and their ports.
async fn forgejo_for_two() -> (FakeForgejo, [u16; 2]) {
    let ports = [free_port(), free_port()];
    let options = Options {
        redirect_uris: ports.map(redirect_uri).to_vec(),
        ..Options::default()
    };
    (FakeForgejo::start(options).await.unwrap(), ports)
}

fn store_settings(directory: &Path) -> Vec<(String, String)> {
    let path = |name: &str| directory.join(name).display().to_string();
    vec![
        ("store.path".to_owned(), path("broker.db")),
        ("store.key_file".to_owned(), path("broker.key")),
    ]
}

async fn start(forgejo: &FakeForgejo, port: u16, settings: Vec<(String, String)>) -> BrokerProcess {
    let options = BrokerOptions {
        port,
        child: Some(fake_forgejo_mcp()),
        settings,
        environment: vec![],
        keep_socket: false,
    };
    BrokerProcess::start(&programs().broker, forgejo, options)
        .await
        .unwrap()
}

/// Refreshes every second, without end. At each refresh the broker finds that the Forgejo token has
/// expired or soon will.
async fn refresh_repeatedly(client: &Client) {
    loop {
        client.refresh().await.unwrap();
        // The rate limit of a grant admits one refresh a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn both_brokers_serve_after_starting_together_on_a_new_store() {
    let directory = TempDir::new().unwrap();
    let brokers = TwoBrokers::start_together(directory.path()).await;
    for broker in [0, 1] {
        let client = brokers.signed_in(broker, "alice").await;
        open_session(&client).await;
        assert_eq!(login_of(&client).await, "alice");
    }
}

#[tokio::test]
async fn broker_that_waits_for_the_database_can_be_stopped() {
    let mut brokers = TwoBrokers::new().await;
    let lock = brokers.brokers[0].directory().join("broker.db-lock");
    brokers.brokers[0].kill().await.unwrap();
    brokers.brokers[1].kill().await.unwrap();
    let lock = std::fs::File::open(lock).unwrap();
    lock.lock().unwrap();
    let [one, _] = &mut brokers.brokers;
    let waiting = one.log().count(WAITING_MESSAGE);
    let log = one.log().clone();
    tokio::select! {
        started = one.start_again() => panic!("the store is not ready: {started:?}"),
        () = log.contains_times(WAITING_MESSAGE, waiting + 1) => {}
    }
    assert!(one.terminate().await.unwrap().success());
}

#[tokio::test]
async fn concurrent_renewals_and_sign_ins_lose_no_grant() {
    let brokers = TwoBrokers::new().await;
    brokers.forgejo.set_advertised_lifetime(TOKEN_LIFETIME);
    let (one, two) = (brokers.signed_in(0, "alice").await, brokers.signed_in(1, "alice").await);
    for client in [&one, &two] {
        open_session(client).await;
    }
    // Responses are slow enough that requests of both brokers overlap at Forgejo.
    let slow = Fault::Delay(Duration::from_millis(100));
    brokers
        .forgejo
        .inject(FORGEJO_TOKEN_ENDPOINT, slow, Times::UntilCleared);
    let before = brokers.forgejo.counters();
    let sign_ins = async {
        for broker in [0, 1, 0, 1] {
            let client = brokers.signed_in(broker, "alice").await;
            client.refresh().await.unwrap();
        }
    };
    let renewed = async {
        brokers
            .forgejo
            .wait_for(|now| now.refreshes >= before.refreshes + 6)
            .await
    };
    let (first_refreshes, second_refreshes) = (refresh_repeatedly(&one), refresh_repeatedly(&two));
    tokio::select! {
        ((), _) = async { tokio::join!(sign_ins, renewed) } => {}
        () = async { tokio::join!(first_refreshes, second_refreshes); } => {}
    }
    for client in [&one, &two] {
        client.refresh().await.unwrap();
        assert_eq!(login_of(client).await, "alice");
    }
    for broker in &brokers.brokers {
        assert!(!broker.log().text().contains("has to sign in again"));
    }
}

#[tokio::test]
async fn broker_killed_during_a_renewal_delays_the_other_briefly_and_loses_no_grant() {
    let mut brokers = TwoBrokers::new().await;
    brokers.forgejo.set_advertised_lifetime(TOKEN_LIFETIME);
    let (one, two) = (brokers.signed_in(0, "alice").await, brokers.signed_in(1, "alice").await);
    // The fake Forgejo drops a request when its caller disconnects, so the refresh token is not
    // spent.
    let never_responds = Fault::Delay(Duration::from_secs(3600));
    brokers
        .forgejo
        .inject(FORGEJO_TOKEN_ENDPOINT, never_responds, Times::Next(1));
    let before = brokers.forgejo.counters();
    let earlier = before.requests_to(FORGEJO_TOKEN_ENDPOINT);
    let renewal_begins = brokers
        .forgejo
        .wait_for(|now| now.requests_to(FORGEJO_TOKEN_ENDPOINT) > earlier);
    tokio::select! {
        _ = renewal_begins => {}
        () = refresh_repeatedly(&one) => {}
    }
    brokers.brokers[0].kill().await.unwrap();

    let renewed = brokers.forgejo.wait_for(|now| now.refreshes > before.refreshes);
    tokio::select! {
        _ = renewed => {}
        () = refresh_repeatedly(&two) => {}
    }
    two.refresh().await.unwrap();
    brokers.brokers[0].start_again().await.unwrap();
    for client in [&one, &two] {
        client.refresh().await.unwrap();
        open_session(client).await;
        assert_eq!(login_of(client).await, "alice");
    }
}

#[tokio::test]
async fn revocation_at_one_broker_ends_sessions_of_the_other() {
    let brokers = TwoBrokers::new().await;
    let client = brokers.signed_in(1, "alice").await;
    open_session(&client).await;
    let children = brokers.brokers[1].children().unwrap();
    assert_eq!(children.len(), 1);
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", &client.refresh_token().unwrap())
        .append_pair("client_id", &client.client_id().unwrap())
        .finish();
    let revoke = http_client::client(Duration::from_secs(30))
        .post(format!("{}/oauth/revoke", brokers.brokers[0].url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let answer = revoke.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    children[0].exited().await.unwrap();
    assert_unauthorized(&client).await;
}
