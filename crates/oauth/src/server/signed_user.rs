//! A user and an expiry that a cookie carries, protected by a keyed hash over them and what they
//! are for.

use crate::{ids::UserId, seal::Sealer};

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
    /// Signs a user and an expiry for a purpose and a context.
    pub(super) fn sign(sealer: &Sealer, purpose: &str, context: &[&str], user: UserId, expires_at: u64) -> Self {
        let hash = with_parts(context, user, expires_at, |parts| sealer.keyed_hash(purpose, parts));
        Self { user, expires_at, hash }
    }

    /// Returns whether it was signed for this purpose and this context.
    pub(super) fn verify(&self, sealer: &Sealer, purpose: &str, context: &[&str]) -> bool {
        let (user, expires_at) = (self.user, self.expires_at);
        with_parts(context, user, expires_at, |parts| {
            sealer.verifies(purpose, parts, &self.hash)
        })
    }

    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.user.0.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at.to_be_bytes());
        bytes.extend_from_slice(&self.hash);
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

fn with_parts<T>(context: &[&str], user: UserId, expires_at: u64, use_parts: impl FnOnce(&[&str]) -> T) -> T {
    let (user, expires_at) = (user.to_string(), expires_at.to_string());
    use_parts(&[context, &[&user, &expires_at]].concat())
}
