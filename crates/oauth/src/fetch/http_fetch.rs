//! [`Fetch`] over https, with the connection pinned to addresses that were checked.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::Url;

use super::{Document, Fetch, FetchError, address, check_url, freshness, json_type};
use crate::ports::BoxFuture;

/// How long one document may take in all, the wait for a turn included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many may be under way at once.
const AT_ONCE: usize = 8;
/// How many may wait for a turn. More are told to come back.
const WAITING: usize = 64;

/// The one fetcher. Clones share its limits.
#[derive(Clone)]
pub struct HardenedFetcher {
    client: reqwest::Client,
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

/// Why there can be no fetcher.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// A network of test hosts: names that are answered by listeners of this machine, with certificates of a test authority.
///
/// It is not in a program that was built without the feature `testing`.
#[cfg(feature = "testing")]
#[derive(Clone, Debug, Default)]
pub struct TestNetwork {
    /// The certificate of the authority that is trusted, and no other, as PEM.
    pub authority_pem: Vec<u8>,
    /// Names, and where they are to be found. All others are resolved as ever.
    pub hosts: std::collections::HashMap<String, SocketAddr>,
    /// What names resolve to, for the check of addresses: as ever, they are connected to only if all of them are public.
    pub answers: std::collections::HashMap<String, Vec<std::net::IpAddr>>,
}

/// Resolves names of the public network, and only those.
#[derive(Clone, Debug, Default)]
struct PublicNames {
    #[cfg(feature = "testing")]
    test: TestNetwork,
}

/// The name has an address that is not public.
#[derive(Debug)]
struct NotPublic;

impl HardenedFetcher {
    /// A fetcher that trusts the certificate authorities of the system.
    ///
    /// # Errors
    ///
    /// [`FetcherError`].
    pub fn new() -> Result<Self, FetcherError> {
        Self::build(PublicNames::default(), |builder| builder)
    }

    /// A fetcher in a network of test hosts.
    ///
    /// # Errors
    ///
    /// [`FetcherError`], also for a certificate that is none.
    #[cfg(feature = "testing")]
    pub fn in_test_network(network: TestNetwork) -> Result<Self, FetcherError> {
        let authority = reqwest::Certificate::from_pem(&network.authority_pem).map_err(FetcherError::Tls)?;
        Self::build(PublicNames { test: network }, |builder| {
            builder.tls_certs_only([authority])
        })
    }

    fn build(
        names: PublicNames,
        trust: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, FetcherError> {
        // Whoever installs a provider first wins; it is this one in every process that has a broker in it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .user_agent("forgejo-mcp-broker")
            .dns_resolver(Arc::new(names));
        Ok(Self {
            client: trust(builder).build().map_err(FetcherError::Tls)?,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
        })
    }

    async fn exchange(&self, url: &Url, max_bytes: usize) -> Result<Document, FetchError> {
        let url = check_url(url.as_str()).map_err(FetchError::Forbidden)?;
        let busy = |_| FetchError::Unavailable("too many documents are being read");
        let _place = self.queue.try_acquire().map_err(busy)?;
        let read = async {
            let _turn = self
                .turns
                .acquire()
                .await
                .map_err(|_| FetchError::Unavailable("the fetcher has been closed"))?;
            self.read(url, max_bytes).await
        };
        tokio::time::timeout(TIMEOUT, read)
            .await
            .unwrap_or(Err(FetchError::Unavailable("no answer in time")))
    }

    async fn read(&self, url: Url, max_bytes: usize) -> Result<Document, FetchError> {
        let request = self.client.get(url).header(http::header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|error| why(&error))?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(FetchError::Refused("it is a redirect")),
            status
                if status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::REQUEST_TIMEOUT =>
            {
                return Err(FetchError::Unavailable("the server is in trouble"));
            }
            _ => return Err(FetchError::Refused("the status is not 200")),
        }
        let headers = response.headers();
        if !json_type::is_json(headers) {
            return Err(FetchError::Refused("it is not JSON"));
        }
        let fresh_for = freshness::of(headers);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| why(&error))? {
            if body.len() + chunk.len() > max_bytes {
                return Err(FetchError::Refused("it is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Document { body, fresh_for })
    }
}

/// What an error means, without anything that the other side wrote.
fn why(error: &reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if inner.is::<NotPublic>() {
            return FetchError::Forbidden("its host is not in the public network");
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        FetchError::Unavailable("no answer in time")
    } else if error.is_connect() {
        FetchError::Unavailable("no connection")
    } else {
        FetchError::Unavailable("the answer broke off")
    }
}

impl PublicNames {
    async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, crate::BoxError> {
        #[cfg(feature = "testing")]
        let addresses: Vec<SocketAddr> = match self.test.answers.get(&name) {
            Some(answers) => answers.iter().map(|ip| SocketAddr::new(*ip, 0)).collect(),
            None => match self.test.hosts.get(&name) {
                Some(listener) => return Ok(vec![*listener]),
                None => tokio::net::lookup_host((name, 0)).await?.collect(),
            },
        };
        #[cfg(not(feature = "testing"))]
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
        if addresses.iter().all(|address| address::is_public(address.ip())) {
            Ok(addresses)
        } else {
            Err(NotPublic.into())
        }
    }
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        let name = name.as_str().to_ascii_lowercase();
        Box::pin(async move {
            let addresses = names.addresses(name).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl Fetch for HardenedFetcher {
    fn fetch<'a>(&'a self, url: &'a Url, max_bytes: usize) -> BoxFuture<'a, Result<Document, FetchError>> {
        Box::pin(self.exchange(url, max_bytes))
    }
}

impl fmt::Debug for HardenedFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HardenedFetcher").finish_non_exhaustive()
    }
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name has an address that is not public")
    }
}

impl std::error::Error for NotPublic {}
