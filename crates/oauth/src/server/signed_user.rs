//! A user and an expiry that a cookie carries, protected by a keyed hash over them and their
//! context.
//!
//! The order of the hashed parts is part of the format: browsers hold cookies from before an
//! upgrade.

use crate::{ids::UserId, seal::Sealer};

/// The texts that a hash covers, before and after the user and the expiry.
pub(super) type Context<'a> = (&'a [&'a str], &'a [&'a str]);

/// A user, an expiry and their keyed hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedUser {
    pub(super) user: UserId,
    /// In seconds since 1970.
    pub(super) expires_at: u64,
    hash: [u8; 32],
}

/// The length of the encoding, in bytes.
pub(super) const LENGTH: usize = 8 + 8 + 32;

impl SignedUser {
    pub(super) fn sign(sealer: &Sealer, purpose: &str, context: Context<'_>, user: UserId, expires_at: u64) -> Self {
        let hash = with_parts(context, user, expires_at, |parts| sealer.keyed_hash(purpose, parts));
        Self { user, expires_at, hash }
    }

    pub(super) fn verify(&self, sealer: &Sealer, purpose: &str, context: Context<'_>) -> bool {
        let matches = |parts: &[&str]| sealer.matches_keyed_hash(purpose, parts, &self.hash);
        with_parts(context, self.user, self.expires_at, matches)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (user, expires_at) = (self.user.0.to_be_bytes(), self.expires_at.to_be_bytes());
        [&user[..], &expires_at, &self.hash].concat()
    }

    pub(super) fn decode(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (user, rest) = bytes.split_first_chunk::<8>()?;
        let (expires_at, hash) = rest.split_first_chunk::<8>()?;
        Some(Self {
            user: UserId(i64::from_be_bytes(*user)),
            expires_at: u64::from_be_bytes(*expires_at),
            hash: hash.try_into().ok()?,
        })
    }
}

fn with_parts<T>(
    (before, after): Context<'_>,
    user: UserId,
    expires_at: u64,
    use_parts: impl FnOnce(&[&str]) -> T,
) -> T {
    let (user, expires_at) = (user.to_string(), expires_at.to_string());
    use_parts(&[before, &[&user, &expires_at], after].concat())
}
