//! Documents at URLs that a client chose: metadata documents and key sets. This crate reads them
//! only through [`Fetch`].
//!
//! A client that chooses a URL makes the broker send a request into the network of the broker.
//! Hence (client ID metadata document draft, sections 6.5 and 6.6; RFC 7591 section 5):
//!
//! - https only, and a host name: no address literal in any spelling;
//! - the name is resolved once and the connection goes to the resolved address; a name with any
//!   address that is not public is refused as a whole, so that a changing name gains nothing;
//! - no redirect, no proxy from the environment, no cookie, no reused connection;
//! - a limit to size, time and the number of fetches, and JSON only.
//!
//! Text of the other side reaches neither log nor response. Left out: the lifetime of a document in
//! the cache (`freshness` only reads what the document says), and its meaning.

mod address;
mod freshness;
mod hardened;
mod url_rules;

use std::{fmt, time::Duration};

use url::Url;

use crate::ports::BoxFuture;

#[cfg(feature = "testing")]
pub(crate) use hardened::PublicResolver;
pub use hardened::{FetcherError, HardenedFetcher};
pub(crate) use url_rules::check_url;

/// Reads documents from the network.
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// Reads a JSON document of `max_bytes` at most.
    ///
    /// Cancel safe: dropping the future ends the request.
    ///
    /// # Errors
    ///
    /// Any [`FetchError`].
    fn fetch<'a>(&'a self, url: &'a Url, max_bytes: usize) -> BoxFuture<'a, Result<Document, FetchError>>;
}

/// A document as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes, with a content type of JSON.
    pub body: Vec<u8>,
    /// The freshness lifetime in its headers (RFC 9111 section 4.2.1), if there is one. Zero: it
    /// must not be cached.
    pub fresh_for: Option<Duration>,
}

/// The reason why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Such a URL is never read.
    #[error("the URL must not be read: {0}")]
    Forbidden(&'static str),
    /// The response is not a document.
    #[error("the response is not a document: {0}")]
    Refused(&'static str),
    /// The URL cannot be read now; a later try may succeed.
    #[error("the URL cannot be read now: {0}")]
    Unavailable(&'static str),
}
