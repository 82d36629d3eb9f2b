//! [`Fetch`] over https, with the connection pinned to addresses that were checked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::Url;

use super::{Document, Fetch, FetchError, address, check_url, freshness, json_type};
use crate::{outbound_http, ports::BoxFuture};

/// The longest time for one document, including the wait for a permit.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest number of fetches that run at once.
const MAX_RUNNING: usize = 8;
/// The largest number of fetches that wait for a permit. Further ones fail as unavailable.
const MAX_WAITING: usize = 64;

/// The usual fetcher. Clones share its limits.
#[derive(Clone, Debug)]
pub struct HardenedFetcher {
    client: reqwest::Client,
    running: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

/// The reason why there is no fetcher: TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct FetcherError(#[source] reqwest::Error);

/// A network of test hosts: names that listeners of this machine answer, with certificates of a
/// test authority.
///
/// It exists only with the feature `testing`.
#[cfg(feature = "testing")]
#[derive(Clone, Debug, Default)]
pub struct TestNetwork {
    /// The certificate of the only trusted authority, as PEM.
    pub authority_pem: Vec<u8>,
    /// Names and the addresses of their listeners. Other names are resolved as usual.
    pub hosts: std::collections::HashMap<String, SocketAddr>,
    /// Names and the addresses to which they resolve, for the check of addresses.
    pub answers: std::collections::HashMap<String, Vec<std::net::IpAddr>>,
}

/// Resolves names, and refuses those with an address outside the public network.
#[derive(Clone, Debug, Default)]
struct PublicResolver {
    #[cfg(feature = "testing")]
    test: TestNetwork,
}

/// The error for a name with an address outside the public network.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not public")]
struct NotPublicError;

impl HardenedFetcher {
    /// A fetcher that trusts the certificate authorities of the system.
    ///
    /// # Errors
    ///
    /// [`FetcherError`].
    pub fn new() -> Result<Self, FetcherError> {
        Self::build(PublicResolver::default(), outbound_http::client(TIMEOUT))
    }

    /// A fetcher in a network of test hosts.
    ///
    /// # Errors
    ///
    /// [`FetcherError`], also for an invalid certificate.
    #[cfg(feature = "testing")]
    pub fn in_test_network(network: TestNetwork) -> Result<Self, FetcherError> {
        let authority = reqwest::Certificate::from_pem(&network.authority_pem).map_err(FetcherError)?;
        let client = outbound_http::client(TIMEOUT).tls_certs_only([authority]);
        Self::build(PublicResolver { test: network }, client)
    }

    fn build(resolver: PublicResolver, client: reqwest::ClientBuilder) -> Result<Self, FetcherError> {
        let client = client
            .https_only(true)
            .referer(false)
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(resolver));
        Ok(Self {
            client: client.build().map_err(FetcherError)?,
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            queue: Arc::new(Semaphore::new(MAX_RUNNING + MAX_WAITING)),
        })
    }

    async fn fetch_queued(&self, url: &Url, max_bytes: usize) -> Result<Document, FetchError> {
        let url = check_url(url.as_str()).map_err(FetchError::Forbidden)?;
        let busy = |_| FetchError::Unavailable("too many documents are being read");
        let _queued = self.queue.try_acquire().map_err(busy)?;
        let read = async {
            let closed = |_| FetchError::Unavailable("the fetcher has been closed");
            let _running = self.running.acquire().await.map_err(closed)?;
            self.read(url, max_bytes).await
        };
        tokio::time::timeout(TIMEOUT, read)
            .await
            .unwrap_or(Err(FetchError::Unavailable("no response in time")))
    }

    async fn read(&self, url: Url, max_bytes: usize) -> Result<Document, FetchError> {
        let request = self.client.get(url).header(http::header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|error| FetchError::of(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(FetchError::Refused("it is a redirect"));
        }
        if outbound_http::is_unavailable(status) || status == StatusCode::REQUEST_TIMEOUT {
            return Err(FetchError::Unavailable("the server is unavailable"));
        }
        if status != StatusCode::OK {
            return Err(FetchError::Refused("the status is not 200"));
        }
        if !json_type::is_json(response.headers()) {
            return Err(FetchError::Refused("it is not JSON"));
        }
        let fresh_for = freshness::lifetime(response.headers());
        let body = outbound_http::read_body(&mut response, max_bytes).await;
        let body = body.map_err(|error| FetchError::of(&error))?;
        let body = body.ok_or(FetchError::Refused("it is too long"))?;
        Ok(Document { body, fresh_for })
    }
}

impl FetchError {
    /// The meaning of an error, without any text of the other side.
    fn of(error: &reqwest::Error) -> Self {
        let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |&error| error.source());
        if causes.any(|cause| cause.is::<NotPublicError>()) {
            Self::Forbidden("its host is not in the public network")
        } else if error.is_timeout() {
            Self::Unavailable("no response in time")
        } else if error.is_connect() {
            Self::Unavailable("no connection")
        } else {
            Self::Unavailable("the response broke off")
        }
    }
}

impl PublicResolver {
    async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, crate::BoxError> {
        #[cfg(feature = "testing")]
        if let Some(listener) = self
            .test
            .hosts
            .get(&name)
            .filter(|_| !self.test.answers.contains_key(&name))
        {
            return Ok(vec![*listener]);
        }
        #[cfg(feature = "testing")]
        let answers = self.test.answers.get(&name);
        #[cfg(not(feature = "testing"))]
        let answers: Option<&Vec<std::net::IpAddr>> = None;
        let addresses: Vec<SocketAddr> = match answers {
            Some(answers) => answers.iter().map(|ip| SocketAddr::new(*ip, 0)).collect(),
            None => tokio::net::lookup_host((name, 0)).await?.collect(),
        };
        if addresses.iter().all(|address| address::is_public(address.ip())) {
            Ok(addresses)
        } else {
            Err(NotPublicError.into())
        }
    }
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone().addresses(name.as_str().to_ascii_lowercase());
        Box::pin(async move { Ok(Box::new(addresses.await?.into_iter()) as Addrs) })
    }
}

impl Fetch for HardenedFetcher {
    fn fetch<'a>(&'a self, url: &'a Url, max_bytes: usize) -> BoxFuture<'a, Result<Document, FetchError>> {
        Box::pin(self.fetch_queued(url, max_bytes))
    }
}
