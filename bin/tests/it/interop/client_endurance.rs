//! Clients stay signed in when access tokens expire, when Forgejo's tokens expire, and when the
//! broker restarts. The user signs in once, and a client that keeps running keeps its session,
//! since sessions outlive their children and the broker.
//!
//! All clients wait at the same time. The broker accepts access tokens for a minute beyond their
//! `expires_in`. A switch that only a broker built for tests has reduces this to two seconds, so
//! that tokens expire within seconds and a client that has not refreshed its token gets a 401.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use testkit::{Host, host::network};
use tokio::{task::JoinSet, time::sleep};

use super::{
    clients::{CLIENTS, Client, ClientIdentity, ClientKind},
    scripted_client::ScriptedClient,
    sdk_client::{Run, Sdk},
};
use crate::harness::{Harness, password};

/// The `expires_in` of access tokens. A token must not expire between two requests of one call.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(10);
/// The time for which the broker accepts an access token beyond that.
const ACCESS_TOKEN_GRACE: Duration = Duration::from_secs(2);
/// The lifetime of a Forgejo token. The broker renews it at half of this time.
const FORGEJO_TOKEN_LIFETIME: Duration = Duration::from_secs(10);
/// The number of times that all tokens expire.
const EXPIRIES: usize = 3;
/// The broker restarts after this expiry.
const RESTART_AT: usize = 2;

/// A harness with short-lived tokens.
async fn short_lived(mut environment: Vec<(String, String)>) -> Harness {
    let grace = ACCESS_TOKEN_GRACE.as_secs().to_string();
    environment.push(("FORGEJO_MCP_BROKER_TEST_GRACE".to_owned(), grace));
    let ttl = format!("{}s", ACCESS_TOKEN_LIFETIME.as_secs());
    let harness = Harness::with_environment(environment, &[("oauth.access_token_ttl", &ttl)]).await;
    harness
        .forgejo
        .set_lifetimes(FORGEJO_TOKEN_LIFETIME, Duration::from_secs(3600));
    harness
}

/// Waits until all tokens have expired. No other wait in these tests depends on time alone.
async fn wait_for_expiry() {
    let longest = FORGEJO_TOKEN_LIFETIME.max(ACCESS_TOKEN_LIFETIME + ACCESS_TOKEN_GRACE);
    sleep(longest + Duration::from_secs(1)).await;
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn registered_clients_stay_signed_in_and_keep_their_sessions() {
    stay_signed_in(short_lived(vec![]).await, |_| ClientIdentity::Registration).await;
}

/// After its restart the broker has to read the documents again.
#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn clients_with_metadata_document_stay_signed_in_and_keep_their_sessions() {
    let host = Host::start().await.unwrap();
    let harness = short_lived(vec![network(&[("client.example", &host)], &[])]).await;
    let identity = |kind| match kind {
        ClientKind::Sdk(Sdk::TypescriptV1 | Sdk::TypescriptV2) => ClientIdentity::DocumentWithKey(&host),
        ClientKind::Sdk(Sdk::Python | Sdk::Rust) | ClientKind::McpRemote | ClientKind::Inspector => {
            ClientIdentity::Document(&host)
        }
    };
    stay_signed_in(harness, identity).await;
}

async fn stay_signed_in<'h>(mut harness: Harness, identity: impl Fn(ClientKind) -> ClientIdentity<'h>) {
    let mut starts = JoinSet::new();
    for (number, kind) in CLIENTS.into_iter().enumerate() {
        // Each client has its own user, so that it does not benefit from a renewal for another
        // client.
        let login = format!("user-{number}");
        harness.forgejo.add_user(&login, &password(&login));
        starts.spawn(Client::start(kind, &harness, &login, identity(kind)));
    }
    let mut clients = starts.join_all().await;
    let control = harness.in_session("bob").await;

    for expiry in 1..=EXPIRIES {
        wait_for_expiry().await;
        if expiry == RESTART_AT {
            harness.restart().await;
        }
        if expiry == 1 {
            // The token of a client that does not refresh it has expired.
            let (answer, _) = control.request("ping", Value::Null).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        clients = call(clients).await;
    }
    let ends = clients.into_iter().map(Client::end);
    ends.collect::<JoinSet<_>>().join_all().await;
    let renewals = usize::try_from(harness.forgejo.counters().refreshes).unwrap();
    assert!(renewals >= EXPIRIES * CLIENTS.len(), "{renewals} renewals at Forgejo");
}

/// All clients call the tool at the same time.
async fn call(clients: Vec<Client>) -> Vec<Client> {
    let calls = clients.into_iter().map(|mut client| async move {
        client.call().await;
        client
    });
    calls.collect::<JoinSet<_>>().join_all().await
}

/// No generation combines parallel refreshes: each call that gets a 401 sends the same refresh
/// token.
#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn six_parallel_calls_with_one_expired_token_succeed_with_both_typescript_generations() {
    const CALLS: usize = 6;
    let harness = short_lived(vec![]).await;
    let mut clients = [(Sdk::TypescriptV1, "alice"), (Sdk::TypescriptV2, "bob")].map(|(sdk, login)| {
        let arguments = r#"{"call":"{call}"}"#;
        ScriptedClient::start(Run::tool_calls(
            sdk,
            &harness,
            login,
            "test_echo",
            arguments,
            [1, CALLS],
        ))
    });
    for client in &mut clients {
        assert_eq!(client.until_ready().await.len(), CALLS);
    }
    for _ in 0..EXPIRIES {
        wait_for_expiry().await;
        for client in &mut clients {
            client.start_calls().await;
        }
        for client in &mut clients {
            assert_eq!(client.until_ready().await.len(), CALLS);
        }
    }
    for client in clients {
        assert_eq!(client.end().await.len(), 1, "the user must be asked exactly once");
    }
}
