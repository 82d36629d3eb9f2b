//! [`Fetch`] over https, with the connection pinned to addresses that were checked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::Url;

use super::{Document, Fetch, FetchError, address, check_url, freshness};
use crate::{BoxError, content_type, outbound_http, ports::BoxFuture};

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
#[error("cannot set up TLS for client documents")]
pub struct FetcherError(#[from] reqwest::Error);

/// Resolves names, and refuses those with an address outside the public network.
#[derive(Debug)]
pub(crate) struct PublicResolver;

/// The error for a name with an address outside the public network.
#[derive(Debug, thiserror::Error)]
#[error("the host name has an address that is not public")]
struct NotPublicError;

impl HardenedFetcher {
    /// A fetcher that trusts the certificate authorities of the system.
    ///
    /// # Errors
    ///
    /// [`FetcherError`].
    pub fn new() -> Result<Self, FetcherError> {
        Self::build(outbound_http::client(TIMEOUT), PublicResolver)
    }

    pub(crate) fn build(
        client: reqwest::ClientBuilder,
        resolver: impl Resolve + 'static,
    ) -> Result<Self, FetcherError> {
        let client = client
            .https_only(true)
            .referer(false)
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(resolver));
        Ok(Self {
            client: client.build()?,
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
        if !content_type::is_json(response.headers()) {
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
    /// Returns the addresses of a name if all of them are public.
    pub(crate) fn check(addresses: impl Iterator<Item = SocketAddr>) -> Result<Addrs, BoxError> {
        let addresses: Vec<_> = addresses.collect();
        if addresses.iter().all(|address| address::is_public(address.ip())) {
            Ok(Box::new(addresses.into_iter()))
        } else {
            Err(NotPublicError.into())
        }
    }
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_ascii_lowercase();
        Box::pin(async move { Self::check(tokio::net::lookup_host((name, 0)).await?) })
    }
}

impl Fetch for HardenedFetcher {
    fn fetch<'a>(&'a self, url: &'a Url, max_bytes: usize) -> BoxFuture<'a, Result<Document, FetchError>> {
        Box::pin(self.fetch_queued(url, max_bytes))
    }
}
