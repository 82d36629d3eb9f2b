//! How documents that clients publish are read.
//!
//! Only a program that was built with the feature `testing` knows [`TEST_NETWORK`]: there, end-to-end tests put a
//! listener of this machine and an authority of their own in the place of the public network. A program that is
//! released is built without it, and nothing at run time can switch it on.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use oauth::fetch::{Fetch, HardenedFetcher};

/// The variable that describes a network of test hosts: the path of the authority's certificate as PEM, then, each after
/// a `;`, hosts as `NAME=ADDRESS:PORT`, and names that resolve to addresses (without a port, several with commas) which are
/// judged as in the public network.
#[cfg(feature = "testing")]
const TEST_NETWORK: &str = "FORGEJO_MCP_BROKER_TEST_NETWORK";

pub(super) fn fetcher() -> Result<Arc<dyn Fetch>> {
    #[cfg(feature = "testing")]
    if let Some(network) = test_network()? {
        tracing::warn!("documents of clients are read from a network of test hosts");
        let fetcher = HardenedFetcher::in_test_network(network).context("the test network cannot be set up")?;
        return Ok(Arc::new(fetcher));
    }
    let fetcher = HardenedFetcher::new().context("documents of clients cannot be read")?;
    Ok(Arc::new(fetcher))
}

#[cfg(feature = "testing")]
fn test_network() -> Result<Option<oauth::fetch::TestNetwork>> {
    let Some(value) = std::env::var_os(TEST_NETWORK) else {
        return Ok(None);
    };
    let value = value.into_string().ok().context("the test network is not UTF-8")?;
    let mut parts = value.split(';');
    let authority_pem = std::fs::read(parts.next().unwrap_or_default()).context("there is no test authority")?;
    let mut network = oauth::fetch::TestNetwork {
        authority_pem,
        ..Default::default()
    };
    for host in parts {
        let (name, address) = host.split_once('=').context("a test host is NAME=ADDRESS")?;
        if let Ok(listener) = address.parse() {
            network.hosts.insert(name.to_owned(), listener);
        } else {
            let addresses: Result<Vec<_>, _> = address.split(',').map(str::parse).collect();
            network.answers.insert(name.to_owned(), addresses?);
        }
    }
    Ok(Some(network))
}
