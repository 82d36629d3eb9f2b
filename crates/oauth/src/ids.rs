//! Identifiers as types of their own, so that the number of a user is never taken for the number of
//! an exchange.
//!
//! Each is stored and shown as the value that it wraps.

use std::fmt;

macro_rules! ids {
    ($($(#[$attribute:meta])* $name:ident($inner:ty);)+) => {$(
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// A client: the identifier that it has registered, or the URL of its metadata document.
    ClientId(String);

    /// A grant: one user's consent to one client.
    GrantId(String);

    /// A user, by Forgejo's numeric id, which stays when the login changes.
    #[derive(Copy)]
    UserId(i64);

    /// A version of an account: a random number, new with each pair of upstream tokens and never
    /// reused.
    #[derive(Copy)]
    TokenVersion(i64);

    /// A code exchange at the upstream. A later one has a greater number.
    #[derive(Copy)]
    ExchangeId(i64);

    /// A process that holds leases: a random number, drawn at its start.
    #[derive(Copy)]
    LeaseOwner(i64);
}
