//! Clients stay signed in: over the end of access tokens, over the end of Forgejo's tokens, over a restart of the broker. A
//! person is asked for once, and a client that keeps running goes on with the session that it has, since sessions outlive
//! their children and the broker too.
//!
//! All clients wait side by side. Of the minute for which access tokens are honoured beyond what clients are told, two seconds
//! are left here, by a switch that only a broker built for tests has. So tokens end in seconds, and a client that has not
//! renewed its own by then meets a 401.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Host, host::network};
use tokio::{task::JoinSet, time::sleep};

use super::{
    clients::{CLIENTS, Client, Kind, KnownBy},
    scripted_client::ScriptedClient,
    sdk_client::{Run, Sdk},
};
use crate::harness::{Harness, password};

/// How long an access token lives here, as its client is told. Between two requests of one call it must not end.
const ACCESS: Duration = Duration::from_secs(10);
/// How long it is honoured beyond that.
const GRACE: Duration = Duration::from_secs(2);
/// How long a token of Forgejo lives here. It is renewed at half of that.
const FORGEJO: Duration = Duration::from_secs(10);
/// How often everything ends.
const TIMES: usize = 3;
/// After which of these times the broker is another process.
const RESTART: usize = 2;

/// A harness on which every token is short-lived.
async fn short_lived(mut switches: Vec<(String, String)>) -> Harness {
    switches.push(("FORGEJO_MCP_BROKER_TEST_GRACE".to_owned(), GRACE.as_secs().to_string()));
    let ttl = format!("{}s", ACCESS.as_secs());
    let harness = Harness::with_environment(switches, &[("oauth.access_token_ttl", &ttl)]).await;
    harness.forgejo.set_lifetimes(FORGEJO, Duration::from_secs(3600));
    harness
}

/// Waits until everything that a user has has run out: the one wait in these tests that is for time itself.
async fn time_goes_by() {
    sleep(FORGEJO.max(ACCESS + GRACE) + Duration::from_secs(1)).await;
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn every_client_that_registered_stays_signed_in_and_keeps_its_session() {
    stay_signed_in(short_lived(vec![]).await, |_| KnownBy::Registration).await;
}

/// After the restart the broker has to read their documents anew.
#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn every_client_that_is_described_stays_signed_in_and_keeps_its_session() {
    let host = Host::start().await.unwrap();
    let harness = short_lived(vec![network(&[("client.example", &host)], &[])]).await;
    let known_by = |kind| match kind {
        Kind::Sdk(Sdk::TypescriptV1 | Sdk::TypescriptV2) => KnownBy::Key(&host),
        Kind::Sdk(Sdk::Python | Sdk::Rust) | Kind::McpRemote | Kind::Inspector => KnownBy::Document(&host),
    };
    stay_signed_in(harness, known_by).await;
}

async fn stay_signed_in<'h>(mut harness: Harness, known_by: impl Fn(Kind) -> KnownBy<'h>) {
    let mut starts = JoinSet::new();
    for (number, kind) in CLIENTS.into_iter().enumerate() {
        // Each client has a user of its own, so that none profits from what another one renews.
        let login = format!("user-{number}");
        harness.forgejo.add_user(&login, &password(&login));
        starts.spawn(Client::start(kind, &harness, &login, known_by(kind)));
    }
    let mut clients = starts.join_all().await;
    let control = harness.in_session("bob").await;

    for time in 1..=TIMES {
        time_goes_by().await;
        if time == RESTART {
            harness.broker.terminate().await.unwrap();
            harness.broker.start_again().await.unwrap();
        }
        if time == 1 {
            // Who does not renew a token is out.
            let (answer, _) = control.request("ping", Value::Null).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        clients = call(clients).await;
    }
    let ends = clients.into_iter().map(Client::end);
    ends.collect::<JoinSet<_>>().join_all().await;
    let renewals = usize::try_from(harness.forgejo.counters().refreshes).unwrap();
    assert!(renewals >= TIMES * CLIENTS.len(), "{renewals} renewals at Forgejo");
}

/// All clients call the tool at once.
async fn call(clients: Vec<Client>) -> Vec<Client> {
    let calls = clients.into_iter().map(|mut client| async move {
        client.call().await;
        client
    });
    calls.collect::<JoinSet<_>>().join_all().await
}

/// Neither generation refreshes in single flight: each call that runs into a 401 sends the same refresh token.
#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn six_parallel_calls_with_one_expired_token_succeed_with_both_typescript_generations() {
    const CALLS: usize = 6;
    let harness = short_lived(vec![]).await;
    let mut clients = [(Sdk::TypescriptV1, "alice"), (Sdk::TypescriptV2, "bob")].map(|(sdk, login)| {
        let arguments = r#"{"call":"{call}"}"#;
        ScriptedClient::start(Run::start(sdk, &harness, login, "test_echo", arguments, [1, CALLS]))
    });
    for client in &mut clients {
        assert_eq!(client.until_ready().await.len(), CALLS);
    }
    for _ in 0..TIMES {
        time_goes_by().await;
        for client in &mut clients {
            client.order(&json!({ "call": true })).await;
        }
        for client in &mut clients {
            assert_eq!(client.until_ready().await.len(), CALLS);
        }
    }
    for client in clients {
        assert_eq!(client.end().await.len(), 1, "a person is asked once");
    }
}
