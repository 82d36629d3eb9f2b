//! The whole store, as the sum of its parts.
//!
//! Every method is one transaction: it has happened as a whole when it returns `Ok`, survives the
//! death of the process from then on, and has not happened at all when the future is dropped early
//! or returns an error. One exception: an error may hide a success whose acknowledgement was lost.
//! Lookups are by hash, so that the time they take says nothing about a secret.

use std::time::SystemTime;

use super::{AccountStore, BoxFuture, ClientStore, GrantStore, RevocationStore};
use crate::BoxError;

/// The outcome of a store operation.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be used now; a later try may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] BoxError),
    /// A record exists but makes no sense. A later try fares no better.
    #[error("a record in the database is damaged")]
    Damaged(#[source] BoxError),
}

/// The whole store.
pub trait Store: ClientStore + GrantStore + RevocationStore + AccountStore {
    /// Checks that the store answers.
    fn probe(&self) -> StoreFuture<'_, ()>;

    /// Deletes expired records, and clients that have had no grant for long. It ends only grants to
    /// which no token leads any more.
    fn purge(&self, now: SystemTime) -> StoreFuture<'_, ()>;
}
