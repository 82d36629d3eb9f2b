//! Random secrets and their hashes.
//!
//! A secret is a prefix that scanners can recognize and 256 random bits in base64url. Only its
//! SHA-256 is stored.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::records::TokenHash;

/// The prefix of access tokens.
pub(crate) const ACCESS: &str = "fmb_at_";
/// The prefix of refresh tokens.
pub(crate) const REFRESH: &str = "fmb_rt_";
/// The prefix of authorization codes.
pub(crate) const CODE: &str = "fmb_code_";
/// The prefix of client secrets.
pub(crate) const CLIENT_SECRET: &str = "fmb_cs_";
/// The prefix of registration access tokens.
pub(crate) const REGISTRATION: &str = "fmb_reg_";

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("getrandom(2) does not fail on a Linux that has started");
    bytes
}

/// A new secret.
pub(crate) fn mint(prefix: &str) -> SecretString {
    with_prefix(prefix, random())
}

/// A secret with given bytes.
pub(crate) fn with_prefix(prefix: &str, bytes: [u8; 32]) -> SecretString {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)).into()
}

/// A new name that must not collide but need not be secret: 128 random bits.
pub(crate) fn name(prefix: &str) -> String {
    format!("{prefix}{}", hex::encode(random::<16>()))
}

/// The hash under which a secret is stored.
pub(crate) fn hash(secret: &str) -> TokenHash {
    TokenHash(Sha256::digest(secret.as_bytes()).into())
}

/// Compares in a time that does not depend on the place of the first difference.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn secret_has_its_prefix_and_256_bits() {
        let secret = mint(ACCESS);
        let text = secret.expose_secret();
        let bits = URL_SAFE_NO_PAD.decode(text.strip_prefix("fmb_at_").unwrap()).unwrap();
        assert_eq!(bits.len(), 32);
        assert_ne!(text, mint(ACCESS).expose_secret());
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = mint(REFRESH);
        assert!(!format!("{secret:?}").contains("fmb_rt_"));
    }

    #[test]
    fn same_compares_content_and_length() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"abcd"));
    }
}
