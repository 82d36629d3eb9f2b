//! What the crate needs from outside, as traits that it owns.
//!
//! All traits are object-safe and held as `Arc<dyn _>`. Times are arguments or come from the [`Clock`].

mod store;
mod upstream;

use std::{fmt, future::Future, pin::Pin, time::SystemTime};

pub use store::{AccountStore, ClientStore, GrantStore, NewTokens, SignIn, Spent, Store, StoreError};
pub use upstream::{TokenPair, Upstream, UpstreamError, UpstreamUser};

/// An owned future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The wall clock. Lifetimes of tokens outlive the process, so that a monotonic clock will not do.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// What time it is.
    fn now(&self) -> SystemTime;
}

/// Hears that access has ended, so that whatever runs on it can be ended at once.
///
/// Calls come after the change is in the store, may come twice for one ending, and must return at once.
pub trait GrantEvents: fmt::Debug + Send + Sync + 'static {
    /// A grant has ended: revoked, reused, or displaced.
    fn grant_ended(&self, grant: &str);

    /// All grants of a user have ended: refused by Forgejo or by the allow-list.
    fn user_ended(&self, user: i64);

    /// A user has signed in: whatever runs on the credential of before may move to the new one.
    fn user_signed_in(&self, _user: i64) {}
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl GrantEvents for NoEvents {
    fn grant_ended(&self, _grant: &str) {}

    fn user_ended(&self, _user: i64) {}
}
