//! The traits that this crate needs from outside.
//!
//! All are object-safe and held as `Arc<dyn _>`. Times are arguments or come from the [`Clock`].

mod accounts;
mod clients;
mod grants;
mod revocation;
mod store;
mod upstream;

use std::{
    fmt,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::ids::{GrantId, UserId};

pub use accounts::{AccountStore, LeaseAttempt, SignInTokens};
pub use clients::{ClientInsertion, ClientStore};
pub use futures_core::future::BoxFuture;
pub use grants::{GrantStore, PendingLookup};
pub use revocation::{
    NewTokens, PresentedToken, Redemption, RefusalOutcome, RefusedTokens, Revocation, RevocationBatch, RevocationStore,
    SignIn, SignedIn,
};
pub use store::{Store, StoreError, StoreFuture};
pub use upstream::{GrantedScope, Upstream, UpstreamError, UpstreamTokens, UpstreamUser};

/// The time, on two clocks.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock, for lifetimes that outlive the process. It may be set back.
    fn now(&self) -> SystemTime;

    /// The time since a fixed moment of this process, for rate limits. It never goes back.
    fn uptime(&self) -> Duration;
}

/// The receiver of grant events: it ends the sessions that run on a grant, and counts them.
///
/// All calls must return at once. A revocation is reported after it is in the store, and may be
/// reported twice.
pub trait GrantEvents: fmt::Debug + Send + Sync + 'static {
    /// A grant has ended: revoked, reused, or displaced.
    fn grant_ended(&self, grant: &GrantId);

    /// All grants of a user have ended: refused by Forgejo or by the allow-list.
    fn user_ended(&self, user: UserId);

    /// A user has signed in: sessions on the former upstream token may move to the new one.
    fn user_signed_in(&self, _user: UserId) {}

    /// The number of sessions on a grant, for the page that shows it.
    fn sessions(&self, grant: &GrantId) -> usize;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only read of the wall clock in this crate")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn uptime(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}
