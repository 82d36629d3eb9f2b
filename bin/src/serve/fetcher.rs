//! The fetcher of documents that clients publish.
//!
//! Only a program that is built with the feature `testing` has [`TEST_NETWORK`], with which
//! end-to-end tests replace the public network by a local listener and a certificate authority of
//! their own. Released programs are built without the feature, and nothing at run time can enable
//! it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use oauth::fetch::{Fetch, HardenedFetcher};

/// The variable that describes a network of test hosts: the path of the authority's certificate as
/// PEM, then, each after a `;`, hosts as `NAME=ADDRESS:PORT`, and names that resolve to addresses
/// (without a port, several with commas) to which the rules of the public network apply.
#[cfg(feature = "testing")]
const TEST_NETWORK: &str = "FORGEJO_MCP_BROKER_TEST_NETWORK";

pub(super) fn fetcher() -> Result<Arc<dyn Fetch>> {
    #[cfg(feature = "testing")]
    if let Some(network) = test_network()? {
        tracing::warn!("client documents are fetched from a network of test hosts");
        let fetcher = network.fetcher().context("cannot set up the test network")?;
        return Ok(Arc::new(fetcher));
    }
    let fetcher = HardenedFetcher::new().context("cannot set up the fetcher of client documents")?;
    Ok(Arc::new(fetcher))
}

#[cfg(feature = "testing")]
fn test_network() -> Result<Option<oauth::testing::TestNetwork>> {
    let Some(value) = std::env::var_os(TEST_NETWORK) else {
        return Ok(None);
    };
    let value = value.into_string().ok().context("the test network is not UTF-8")?;
    let mut parts = value.split(';');
    let authority_pem =
        std::fs::read(parts.next().unwrap_or_default()).context("cannot read the certificate of the test authority")?;
    let mut network = oauth::testing::TestNetwork {
        authority_pem,
        ..Default::default()
    };
    for host in parts {
        let (name, address) = host.split_once('=').context("a test host must be NAME=ADDRESS")?;
        if let Ok(listener) = address.parse() {
            network.hosts.insert(name.to_owned(), listener);
        } else {
            let addresses: Result<Vec<_>, _> = address.split(',').map(str::parse).collect();
            network.answers.insert(name.to_owned(), addresses?);
        }
    }
    Ok(Some(network))
}
