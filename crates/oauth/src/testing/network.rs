//! A network of test hosts for the fetcher.

use std::{
    collections::HashMap,
    future::ready,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{
    fetch::{FetcherError, HardenedFetcher, PublicResolver},
    outbound_http,
};

/// Names that listeners of this machine answer, with certificates of a test authority.
#[derive(Clone, Debug, Default)]
pub struct TestNetwork {
    /// The certificate of the only trusted authority, as PEM.
    pub authority_pem: Vec<u8>,
    /// Names and the addresses of their listeners. Other names are resolved as usual.
    pub hosts: HashMap<String, SocketAddr>,
    /// Names and the addresses to which they resolve, for the check of addresses.
    pub answers: HashMap<String, Vec<IpAddr>>,
}

impl TestNetwork {
    /// A fetcher in this network.
    ///
    /// # Errors
    ///
    /// [`FetcherError`], also for an invalid certificate.
    pub fn fetcher(self) -> Result<HardenedFetcher, FetcherError> {
        let authority = reqwest::Certificate::from_pem(&self.authority_pem)?;
        let client = outbound_http::client(Duration::from_secs(5)).tls_certs_only([authority]);
        HardenedFetcher::build(client, self)
    }
}

impl Resolve for TestNetwork {
    fn resolve(&self, name: Name) -> Resolving {
        let lowercase = name.as_str().to_ascii_lowercase();
        if let Some(answers) = self.answers.get(&lowercase) {
            let addresses = answers.iter().map(|ip| SocketAddr::new(*ip, 0));
            return Box::pin(ready(PublicResolver::check(addresses)));
        }
        match self.hosts.get(&lowercase) {
            Some(listener) => Box::pin(ready(Ok(Box::new(std::iter::once(*listener)) as Addrs))),
            None => PublicResolver.resolve(name),
        }
    }
}
