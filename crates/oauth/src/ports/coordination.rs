//! Coordination of several processes on one store.
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
    ids::{ExchangeId, LeaseOwner, UserId},
    records::AccountRecord,
};

/// The outcome of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAttempt {
    /// `true` if the caller holds the lease now. Otherwise another owner does.
    pub acquired: bool,
    /// The account at that moment.
    pub account: Option<AccountRecord>,
}

/// Keeps the leases of accounts.
pub trait LeaseStore: fmt::Debug + Send + Sync + 'static {
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
}

/// Keeps the register of running code exchanges.
pub trait ExchangeStore: fmt::Debug + Send + Sync + 'static {
    /// Registers an exchange that is about to begin.
    fn begin_exchange(&self, until: SystemTime) -> StoreFuture<'_, ExchangeId>;

    /// Extends the registration of a running exchange.
    fn extend_exchange(&self, exchange: ExchangeId, until: SystemTime) -> StoreFuture<'_, ()>;

    /// Removes an exchange that has ended.
    fn end_exchange(&self, exchange: ExchangeId) -> StoreFuture<'_, ()>;
}
