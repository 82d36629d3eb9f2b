//! The program of the release build, without the Cargo feature `testing`, does not have the
//! switches of tests.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Browser, Host, host::network};
use tokio::time::sleep;

use super::sdk_client::root;
use crate::harness::{Harness, open_session};

/// The copy that `cargo xtask interop` makes.
const PROGRAM: &str = "target/interop/released/forgejo-mcp-broker";

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn release_build_ignores_switches_of_tests() {
    let host = Host::start().await.unwrap();
    let client_id = "https://client.example/client.json";
    let document = json!({
        "client_id": client_id, "client_name": "Not to be read", "redirect_uris": ["http://127.0.0.1/callback"],
    });
    host.json("/client.json", &document);
    let environment = vec![
        network(&[("client.example", &host)], &[]),
        ("FORGEJO_MCP_BROKER_TEST_GRACE".to_owned(), "0".to_owned()),
    ];
    let settings = [("oauth.access_token_ttl", "1s")];
    let harness = Harness::with_program(&root().join(PROGRAM), environment, &settings).await;

    let alice = harness.signed_in("alice").await;
    open_session(&alice).await;
    let mut url = alice.authorize_url().unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(pairs.iter().map(|(name, value)| {
            let value = if name == "client_id" { client_id } else { value };
            (name, value)
        }));
    // The name does not exist on the public network (RFC 2606 section 3).
    let page = Browser::new().get(&url).await.unwrap();
    assert!(
        page.status.is_client_error() || page.status.is_server_error(),
        "{}",
        page.text()
    );
    assert_eq!(host.connections(), 0);

    sleep(Duration::from_secs(2)).await;
    let (answer, _) = alice.request("ping", Value::Null).await.unwrap();
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "the grace period of a minute was reduced"
    );
}
