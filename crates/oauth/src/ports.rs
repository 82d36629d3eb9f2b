//! What the crate needs from outside, as traits that it owns.
//!
//! All traits are object-safe and held as `Arc<dyn _>`. Times are arguments or come from the [`Clock`].

mod processes;
mod store;
mod upstream;

use std::{fmt, future::Future, pin::Pin, time::SystemTime};

use crate::ids::{GrantId, UserId};

pub use processes::{EndedGrant, Endings, Judged, Lease, ProcessStore};
pub use store::{
    AccountStore, Admitted, ClientStore, GrantStore, NewTokens, Placed, SignIn, SignedIn, SignedInPair, Spent, Store,
    StoreError, Taken,
};
pub use upstream::{GrantedScope, TokenPair, Upstream, UpstreamError, UpstreamUser};

/// An owned future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The wall clock. Lifetimes of tokens outlive the process, so that a monotonic clock will not do.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// What time it is.
    fn now(&self) -> SystemTime;
}

/// Whatever runs on grants: it hears that access has ended, so that it can end at once, and says how much there is.
///
/// All calls must return at once. Endings are told after the change is in the store, and may be told twice.
pub trait GrantEvents: fmt::Debug + Send + Sync + 'static {
    /// A grant has ended: revoked, reused, or displaced.
    fn grant_ended(&self, grant: &GrantId);

    /// All grants of a user have ended: refused by Forgejo or by the allow-list.
    fn user_ended(&self, user: UserId);

    /// A user has signed in: whatever runs on the credential of before may move to the new one.
    fn user_signed_in(&self, _user: UserId) {}

    /// How many sessions live on a grant, for the page that shows it.
    fn sessions(&self, grant: &GrantId) -> usize;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
