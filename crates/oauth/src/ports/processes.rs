//! What several processes on one store have to know of each other.
//!
//! Two things that are done at the upstream may not be done by two processes at once, or must be known to the other:
//!
//! - **a renewal**, since the refresh token is good once. Who renews holds the *lease* of the account;
//! - **the exchange of a code**, since it kills the refresh tokens of before, and whose they are shows only afterwards. Each
//!   is noted from before it begins until its outcome is in the store, under a number.
//!
//! Both are kept alive by whoever has them, and expire when it dies: times are the caller's, so that all processes have to
//! go by one clock, which they do on one machine. A process that stands still for longer than that counts as dead.
//!
//! And each hears which grants the others have ended.

use std::time::SystemTime;

use super::{BoxFuture, StoreError};
use crate::{
    ids::{ExchangeId, GrantId, LeaseOwner, PairId, UserId},
    records::AccountRecord,
};

/// What became of a lease that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whether it is the asker's now. Else someone else has it.
    pub taken: bool,
    /// The account, as it was at that moment.
    pub account: Option<AccountRecord>,
}

/// What became of a user whose tokens the upstream has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// All grants of the user have been ended, and the account is gone.
    Ended,
    /// Another pair is there than the one that was refused: nothing has ended.
    Replaced(Box<AccountRecord>),
    /// Nothing has ended: an exchange is under way that may have killed the pair. This is the newest that had begun when the
    /// question was asked first.
    Exchanging(ExchangeId),
    /// Nothing has ended: someone else has the lease of the account.
    Elsewhere,
}

/// Grants that have ended since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endings {
    /// Up to where this goes: what to ask from next time.
    pub upto: i64,
    /// Whether some are no longer remembered.
    pub missed: bool,
    /// The grants, in order.
    pub grants: Vec<EndedGrant>,
}

/// A grant of which something has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedGrant {
    /// Its name.
    pub grant: GrantId,
    /// Whether it has ended as a whole. Else only some of its tokens have.
    pub whole: bool,
}

/// Keeps what processes have to know of each other.
pub trait ProcessStore: std::fmt::Debug + Send + Sync + 'static {
    /// Takes the lease of a user's account until a time, if nobody else has it at `now`. Who has it already extends it.
    fn lease(
        &self,
        user: UserId,
        owner: LeaseOwner,
        until: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Lease, StoreError>>;

    /// Gives the lease of a user's account back, if this owner has it.
    fn release(&self, user: UserId, owner: LeaseOwner) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Notes that an exchange begins.
    fn begin_exchange(&self, until: SystemTime) -> BoxFuture<'_, Result<ExchangeId, StoreError>>;

    /// Notes that an exchange is still under way.
    fn extend_exchange(&self, exchange: ExchangeId, until: SystemTime) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Notes that an exchange has come to its end.
    fn end_exchange(&self, exchange: ExchangeId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Ends a user because the upstream has refused the pair named `version` (`None`: because there is no pair), unless
    /// another pair is there, someone else than `owner` has the lease of the account, or an exchange that began no later than
    /// `known` is under way. Without `known`, any counts. It is asked again and again while one is: that takes no turn of a writer.
    fn end_refused(
        &self,
        user: UserId,
        version: Option<PairId>,
        owner: LeaseOwner,
        known: Option<ExchangeId>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Judged, StoreError>>;

    /// What has ended after a number, a part of it if it is much. With `None` only up to where it goes now.
    fn endings(&self, after: Option<i64>) -> BoxFuture<'_, Result<Endings, StoreError>>;
}
