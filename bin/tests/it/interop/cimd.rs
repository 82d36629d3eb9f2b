//! Client metadata documents over the wire: the client identifier is the URL of a document on an
//! https host of a test network, and each client finds out by itself that the broker reads such
//! documents.
//!
//! Only the TypeScript SDKs sign assertions (`private_key_jwt`) in the authorization code flow. The
//! other SDKs support them only for clients without a user.

use testkit::{Host, host::network};
use tokio::task::JoinSet;

use super::{
    clients::{CLIENTS, Client, ClientIdentity, ClientKind},
    sdk_client::Sdk,
};
use crate::harness::Harness;

/// The clients that sign assertions.
const SIGNING_CLIENTS: [ClientKind; 2] = [ClientKind::Sdk(Sdk::TypescriptV1), ClientKind::Sdk(Sdk::TypescriptV2)];

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn every_client_signs_in_with_its_metadata_document() {
    let host = Host::start().await.unwrap();
    sign_in(&host, &CLIENTS, ClientIdentity::Document(&host)).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn clients_with_key_sign_in_with_their_metadata_document() {
    let host = Host::start().await.unwrap();
    sign_in(&host, &SIGNING_CLIENTS, ClientIdentity::DocumentWithKey(&host)).await;
}

async fn sign_in(host: &Host, clients: &[ClientKind], identity: ClientIdentity<'_>) {
    let harness = Harness::with_environment(vec![network(&[("client.example", host)], &[])], &[]).await;
    let starts = clients.iter().zip(["alice", "bob"].into_iter().cycle());
    let starts = starts.map(|(kind, login)| Client::start(*kind, &harness, login, identity));
    for client in starts.collect::<JoinSet<_>>().join_all().await {
        client.end().await;
    }
    // No client has registered itself.
    assert!(!harness.broker.log().text().contains("client registered"));
    assert!(host.connections() >= clients.len(), "some documents were not read");
}
