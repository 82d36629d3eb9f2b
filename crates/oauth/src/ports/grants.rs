//! The store of pending sign-ins, grants, codes and tokens, as far as no access ends.

use std::{fmt, time::SystemTime};

use super::StoreFuture;
use crate::{
    ids::{ClientId, GrantId, UserId},
    records::{AccessTokenRecord, CodeRecord, GrantRecord, GrantSummary, PendingRecord, TokenHash},
};

/// The outcome of taking a pending sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingLookup {
    /// The sign-in, which has left the store.
    Found(Box<PendingRecord>),
    /// It began in another browser, and stays.
    OtherBrowser,
    /// It is unknown or has expired.
    NotFound,
}

/// Keeps pending sign-ins, and reads grants, codes and tokens.
pub trait GrantStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a pending sign-in unless `limit` unexpired ones exist. Returns whether it was added.
    fn insert_pending(&self, pending: PendingRecord, limit: u32, now: SystemTime) -> StoreFuture<'_, bool>;

    /// Takes a pending sign-in out: once at most, before its expiry, and only for the browser in
    /// which it began.
    fn take_pending(&self, state: TokenHash, browser: TokenHash, now: SystemTime) -> StoreFuture<'_, PendingLookup>;

    /// The pending sign-in of a browser, which stays. `None` if the browser has none or several.
    fn only_pending(&self, browser: TokenHash, now: SystemTime) -> StoreFuture<'_, Option<PendingRecord>>;

    /// Finds a code, used or not, expired or not.
    fn code(&self, code: TokenHash) -> StoreFuture<'_, Option<CodeRecord>>;

    /// Finds an access token that has not expired, with its grant.
    fn access_token(&self, token: TokenHash, now: SystemTime) -> StoreFuture<'_, Option<AccessTokenRecord>>;

    /// Finds the grant of an access or refresh token, expired or not.
    fn grant_of_token(&self, token: TokenHash) -> StoreFuture<'_, Option<GrantRecord>>;

    /// The grants of a user, the last used first. Their number is limited.
    fn grants_of_user(&self, user: UserId) -> StoreFuture<'_, Vec<GrantSummary>>;

    /// The clients that have grants.
    fn clients_with_grants(&self) -> StoreFuture<'_, Vec<ClientId>>;

    /// The grants of a client.
    fn grants_of_client<'a>(&'a self, client_id: &'a ClientId) -> StoreFuture<'a, Vec<GrantId>>;

    /// Records when grants, and with them their clients, were used. Grants that have ended are
    /// skipped.
    fn record_uses(&self, uses: Vec<(GrantId, SystemTime)>) -> StoreFuture<'_, ()>;
}
