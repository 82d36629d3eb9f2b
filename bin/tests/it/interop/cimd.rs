//! Clients that are described by a document at the URL that is their identifier, over the wire: the document lies on an https
//! host of a test network, and each client finds by itself that the broker reads such documents.
//!
//! Of the clients only the TypeScript SDKs sign (`private_key_jwt`) in the flow with a code; the others have it for
//! clients without a user.

use testkit::{Host, host::network};
use tokio::task::JoinSet;

use super::{
    clients::{CLIENTS, Client, Kind, KnownBy},
    sdk_client::Sdk,
};
use crate::harness::Harness;

/// Those that sign.
const SIGNERS: [Kind; 2] = [Kind::Sdk(Sdk::TypescriptV1), Kind::Sdk(Sdk::TypescriptV2)];

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn every_client_signs_in_by_the_document_that_describes_it() {
    let host = Host::start().await.unwrap();
    sign_in(&host, &CLIENTS, KnownBy::Document(&host)).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn clients_with_a_key_sign_in_by_the_document_that_describes_them() {
    let host = Host::start().await.unwrap();
    sign_in(&host, &SIGNERS, KnownBy::Key(&host)).await;
}

async fn sign_in(host: &Host, clients: &[Kind], known_by: KnownBy<'_>) {
    let harness = Harness::with_environment(vec![network(&[("client.example", host)], &[])], &[]).await;
    let starts = clients.iter().zip(["alice", "bob"].into_iter().cycle());
    let starts = starts.map(|(kind, login)| Client::start(*kind, &harness, login, known_by));
    for client in starts.collect::<JoinSet<_>>().join_all().await {
        client.end().await;
    }
    // Nobody has registered.
    assert!(!harness.broker.log().text().contains("client registered"));
    assert!(host.connections() >= clients.len(), "the documents were read");
}
