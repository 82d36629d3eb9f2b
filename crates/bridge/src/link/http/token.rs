//! The port for the user's token.

use std::{fmt, future::Future, pin::Pin};

use http::HeaderValue;

use crate::BoxError;

/// A future of a port.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The tokens of the user of a conversation, each as the value of `Authorization`, marked as
/// sensitive.
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// The current token. It is asked for each request.
    fn current(&self) -> BoxFuture<'_, Result<HeaderValue, TokenError>>;

    /// A token other than this one, which the server has refused (401). `None` if there is none,
    /// and none can be had now. The source limits how often it renews.
    ///
    /// Dropping the future must not make a renewal that has begun useless.
    fn replacement<'a>(&'a self, refused: &'a HeaderValue) -> BoxFuture<'a, Result<Option<HeaderValue>, TokenError>>;
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The user has to sign in again.
    #[error("the user has to sign in again")]
    SignInRequired(#[source] BoxError),
    /// There is none now.
    #[error("the user's access cannot be renewed now")]
    Unavailable(#[source] BoxError),
}
