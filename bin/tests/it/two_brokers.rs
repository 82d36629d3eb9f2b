//! Two brokers on one store, as there are while one takes over from another: nobody loses access that they did not take away.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use testkit::{
    Browser, Client, FakeForgejo,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, redirect_uri},
    forgejo::{Fault, Options, Times},
    http_client,
};
use url::form_urlencoded;

use crate::harness::{login_of, open, password};

/// How long a Forgejo token is said to be good: shorter than a test, so that renewals never end. It is good for longer, so that who
/// comes late on a slow machine has lost nothing but time.
const FORGEJO_LIFE: Duration = Duration::from_secs(2);

/// What a broker says that has to wait at its start.
const WAITING: &str = "another process brings the database up to date";

/// Where Forgejo renews tokens.
const TOKEN_ENDPOINT: &str = "/login/oauth/access_token";

/// A Forgejo, and two brokers on the store of the first.
struct TwoBrokers {
    forgejo: FakeForgejo,
    brokers: [BrokerProcess; 2],
}

impl TwoBrokers {
    async fn new() -> Self {
        let ports = [free_port(), free_port()];
        let forgejo = FakeForgejo::start(Options {
            redirect_uris: ports.map(redirect_uri).to_vec(),
            ..Options::default()
        })
        .await
        .unwrap();
        let one = start(&forgejo, ports[0], vec![]).await;
        let here = |name: &str| one.directory().join(name).display().to_string();
        let store = vec![
            ("store.path".to_owned(), here("broker.db")),
            ("store.key_file".to_owned(), here("broker.key")),
        ];
        let two = start(&forgejo, ports[1], store).await;
        Self {
            forgejo,
            brokers: [one, two],
        }
    }

    async fn signed_in(&self, broker: usize, login: &str) -> Client {
        let client = Client::new(self.brokers[broker].mcp_url().parse().unwrap());
        client
            .sign_in(&mut Browser::new(), login, &password(login))
            .await
            .unwrap();
        client
    }
}

async fn start(forgejo: &FakeForgejo, port: u16, settings: Vec<(String, String)>) -> BrokerProcess {
    let options = BrokerOptions {
        port,
        child: Some(ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp)),
        settings,
        environment: vec![],
        keep_socket: false,
    };
    BrokerProcess::start(&programs().broker, forgejo, options)
        .await
        .unwrap()
}

/// Refreshes every second, without end: each has the broker look at the account, which has run out or is about to.
async fn refreshes(client: &Client) {
    loop {
        client.refresh().await.unwrap();
        // The pace of the client: a grant may have one a second for ever.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn two_brokers_that_start_at_once_on_a_new_store_both_serve() {
    let ports = [free_port(), free_port()];
    let forgejo = FakeForgejo::start(Options {
        redirect_uris: ports.map(redirect_uri).to_vec(),
        ..Options::default()
    })
    .await
    .unwrap();
    let directory = TempDir::new().unwrap();
    let here = |name: &str| directory.path().join(name).display().to_string();
    let store = vec![
        ("store.path".to_owned(), here("broker.db")),
        ("store.key_file".to_owned(), here("broker.key")),
    ];
    let brokers = tokio::join!(
        start(&forgejo, ports[0], store.clone()),
        start(&forgejo, ports[1], store)
    );
    let brokers = TwoBrokers {
        forgejo,
        brokers: brokers.into(),
    };
    for broker in [0, 1] {
        let client = brokers.signed_in(broker, "alice").await;
        open(&client).await;
        assert_eq!(login_of(&client).await, "alice");
    }
}

#[tokio::test]
async fn a_broker_that_waits_for_another_one_to_be_ready_can_be_stopped() {
    let mut brokers = TwoBrokers::new().await;
    let lock = brokers.brokers[0].directory().join("broker.db-lock");
    brokers.brokers[0].kill().await.unwrap();
    brokers.brokers[1].kill().await.unwrap();
    let lock = std::fs::File::open(lock).unwrap();
    lock.lock().unwrap();
    let [one, _] = &mut brokers.brokers;
    let waiting = one.log().count(WAITING);
    let log = one.log().clone();
    tokio::select! {
        started = one.start_again() => panic!("the store is not ready: {started:?}"),
        () = log.contains_times(WAITING, waiting + 1) => {}
    }
    assert!(one.terminate().await.unwrap().success());
}

#[tokio::test]
async fn two_brokers_renew_and_sign_in_side_by_side_and_no_grant_is_lost() {
    let brokers = TwoBrokers::new().await;
    brokers.forgejo.set_advertised_lifetime(FORGEJO_LIFE);
    let (one, two) = (brokers.signed_in(0, "alice").await, brokers.signed_in(1, "alice").await);
    for client in [&one, &two] {
        open(client).await;
    }
    // Slow enough for the brokers to meet at Forgejo.
    let slow = Fault::Delay(Duration::from_millis(100));
    brokers.forgejo.inject(TOKEN_ENDPOINT, slow, Times::UntilCleared);
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
    let (one_goes_on, two_goes_on) = (refreshes(&one), refreshes(&two));
    tokio::select! {
        ((), _) = async { tokio::join!(sign_ins, renewed) } => {}
        () = async { tokio::join!(one_goes_on, two_goes_on); } => {}
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
async fn a_broker_that_is_killed_in_a_renewal_holds_up_the_other_for_a_moment_and_costs_no_grant() {
    let mut brokers = TwoBrokers::new().await;
    brokers.forgejo.set_advertised_lifetime(FORGEJO_LIFE);
    let (one, two) = (brokers.signed_in(0, "alice").await, brokers.signed_in(1, "alice").await);
    // Forgejo takes back what the caller does not wait for.
    let for_ever = Fault::Delay(Duration::from_secs(3600));
    brokers.forgejo.inject(TOKEN_ENDPOINT, for_ever, Times::Next(1));
    let before = brokers.forgejo.counters();
    let asked = before.requests_to(TOKEN_ENDPOINT);
    let in_the_middle = brokers.forgejo.wait_for(|now| now.requests_to(TOKEN_ENDPOINT) > asked);
    tokio::select! {
        _ = in_the_middle => {}
        () = refreshes(&one) => {}
    }
    brokers.brokers[0].kill().await.unwrap();

    let renewed = brokers.forgejo.wait_for(|now| now.refreshes > before.refreshes);
    tokio::select! {
        _ = renewed => {}
        () = refreshes(&two) => {}
    }
    two.refresh().await.unwrap();
    brokers.brokers[0].start_again().await.unwrap();
    for client in [&one, &two] {
        client.refresh().await.unwrap();
        open(client).await;
        assert_eq!(login_of(client).await, "alice");
    }
}

#[tokio::test]
async fn what_is_revoked_at_one_broker_ends_at_the_other() {
    let brokers = TwoBrokers::new().await;
    let client = brokers.signed_in(1, "alice").await;
    open(&client).await;
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
    let (answer, _) = client.request("ping", json!({})).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}
