//! The store of sealed upstream tokens, and the coordination of several processes on it.
//!
//! Two actions at the upstream must not run in two processes at once, or must be visible to the
//! other:
//!
//! - **a renewal**, since a refresh token works once. The process that renews holds the *lease* of
//!   the account;
//! - **the exchange of a code**, since it invalidates the user's earlier refresh tokens, and only
//!   its answer shows who the user is. Each exchange is registered under a number from before it
//!   begins until its outcome is in the store.
//!
//! The holder keeps both alive, and they expire when it dies. The caller passes the time, so that
//! all processes must share one clock, as they do on one machine. A process that stands still for
//! longer than the expiry counts as dead.

use std::{fmt, time::SystemTime};

use super::StoreFuture;
use crate::{
    ids::{ExchangeId, LeaseOwner, TokenVersion, UserId},
    records::AccountRecord,
};

/// The upstream tokens of a sign-in.
#[derive(Clone, Debug)]
pub struct SignInTokens {
    /// The tokens.
    pub account: AccountRecord,
    /// The exchange that yielded them. `None` for tokens that replace any others.
    pub exchange: Option<ExchangeId>,
}

/// The outcome of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAttempt {
    /// `true` if the caller holds the lease now. Otherwise another owner does.
    pub acquired: bool,
    /// The account at that moment.
    pub account: Option<AccountRecord>,
}

/// Keeps the sealed upstream tokens, one pair per user, the leases of accounts, and the register of
/// running code exchanges.
pub trait AccountStore: fmt::Debug + Send + Sync + 'static {
    /// The users who have an account.
    fn account_users(&self) -> StoreFuture<'_, Vec<UserId>>;

    /// The values that check the keys, by the number of the key.
    fn key_checks(&self) -> StoreFuture<'_, Vec<(u32, Vec<u8>)>>;

    /// Stores the value that checks a key.
    fn set_key_check(&self, number: u32, value: Vec<u8>) -> StoreFuture<'_, ()>;

    /// Finds the account of a user.
    fn account(&self, user: UserId) -> StoreFuture<'_, Option<AccountRecord>>;

    /// Replaces the tokens named `version`. Returns whether they were stored.
    fn replace_account(&self, account: AccountRecord, version: TokenVersion) -> StoreFuture<'_, bool>;

    /// Replaces the user's tokens, if there are any, with those of a sign-in. Returns `false` if
    /// another sign-in has stored its tokens since the exchange began: only the upstream knows
    /// which are good. May be repeated with the same tokens after an error.
    fn place_account(&self, tokens: SignInTokens) -> StoreFuture<'_, bool>;

    /// Acquires the lease of a user's account until a time, unless another owner holds it at `now`.
    /// Its holder extends it.
    fn acquire_lease(
        &self,
        user: UserId,
        owner: LeaseOwner,
        until: SystemTime,
        now: SystemTime,
    ) -> StoreFuture<'_, LeaseAttempt>;

    /// Releases the lease of a user's account, if this owner holds it.
    fn release_lease(&self, user: UserId, owner: LeaseOwner) -> StoreFuture<'_, ()>;

    /// Registers an exchange that is about to begin.
    fn begin_exchange(&self, until: SystemTime) -> StoreFuture<'_, ExchangeId>;

    /// Extends the registration of a running exchange.
    fn extend_exchange(&self, exchange: ExchangeId, until: SystemTime) -> StoreFuture<'_, ()>;

    /// Removes an exchange that has ended.
    fn end_exchange(&self, exchange: ExchangeId) -> StoreFuture<'_, ()>;
}
