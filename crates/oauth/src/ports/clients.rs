//! The store of registered clients and of the assertions that they have used.

use std::{fmt, time::SystemTime};

use super::StoreFuture;
use crate::{
    ids::ClientId,
    records::{ClientRecord, TokenHash},
};

/// The outcome of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientInsertion {
    /// The client is new.
    Inserted,
    /// A client with the same fingerprint exists, and counts as used now.
    Existing(Box<ClientRecord>),
    /// The limit is reached, and no client can make room.
    LimitReached,
}

/// Keeps registered clients. Deleting one is a [`RevocationStore`](super::RevocationStore)'s work:
/// it ends grants.
pub trait ClientStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a client, unless one with its fingerprint exists or the store has `limit` clients. At
    /// the limit, the client unused longest makes room, if it has no grant and was last used before
    /// `unused_since`.
    fn insert_client(
        &self,
        client: ClientRecord,
        limit: u32,
        unused_since: SystemTime,
    ) -> StoreFuture<'_, ClientInsertion>;

    /// Replaces the metadata of a client. Returns whether the client exists.
    fn update_client(&self, client: ClientRecord) -> StoreFuture<'_, bool>;

    /// Finds a client.
    fn client<'a>(&'a self, client_id: &'a ClientId) -> StoreFuture<'a, Option<ClientRecord>>;

    /// Finds the client with a fingerprint.
    fn client_by_fingerprint(&self, fingerprint: TokenHash) -> StoreFuture<'_, Option<ClientRecord>>;

    /// Records the use of a signed assertion. Returns whether this is the first use; it is not
    /// until the assertion has expired.
    fn use_assertion(&self, assertion: TokenHash, expires_at: SystemTime, now: SystemTime) -> StoreFuture<'_, bool>;
}
