//! The one way in which this crate reads a URL that a client chose: metadata documents and key sets.
//!
//! Whoever names a URL makes the broker send a request into the network that it stands in. Hence (client ID metadata
//! document draft, sections 6.5 and 6.6; RFC 7591 section 5):
//!
//! - https only, and a host name: no address literal in any of its spellings;
//! - the name is resolved once and the connection goes to what it resolved to; a name with any address that is not
//!   public is refused as a whole, so that a name that changes its mind has nothing to gain;
//! - no redirect, no proxy from the environment, no cookie, no connection kept for the next one;
//! - a limit to size and time, to how many are under way, and JSON only.
//!
//! What the other side wrote reaches neither log nor answer. Left out: how long a document is kept (`freshness` only
//! reads what it says), and what it means.

mod address;
mod freshness;
mod http_fetch;
mod json_type;
mod url_rule;

use std::{fmt, time::Duration};

use url::Url;

use crate::ports::BoxFuture;

#[cfg(feature = "testing")]
pub use http_fetch::TestNetwork;
pub use http_fetch::{FetcherError, HardenedFetcher};

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

/// A document as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes, said to be JSON.
    pub body: Vec<u8>,
    /// How long it is fresh by its own word (RFC 9111 section 4.2.1), if it says so. Zero: it is not to be kept.
    pub fresh_for: Option<Duration>,
}

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Such a URL is never read.
    #[error("the URL must not be read: {0}")]
    Forbidden(&'static str),
    /// The other side has answered, and not with a document.
    #[error("the answer is no document: {0}")]
    Refused(&'static str),
    /// It cannot be read now; a later try may succeed.
    #[error("the URL cannot be read now: {0}")]
    Unavailable(&'static str),
}

/// Checks that a URL is one that may be read, as far as can be told without asking anyone.
///
/// # Errors
///
/// What is wrong with it, for the client's developer.
pub(crate) fn check_url(text: &str) -> Result<Url, &'static str> {
    url_rule::check(text)
}
