//! Sealing of upstream tokens and other records at rest, and keyed hashes.
//!
//! Threat model: an attacker has the database file (a backup, a stolen disk) but not the key. The
//! attacker must learn no upstream token, and must not be able to make the broker use a sealed
//! token for another user: the associated data binds each sealed token to its user and its kind,
//! and other records to their own kind and key. An attacker who can write both files is out of
//! scope.
//!
//! A sealed token is a format byte, the number of the key, a random nonce of 192 bits, and the
//! XChaCha20-Poly1305 ciphertext with its tag. Keys are numbered, so that a new key can seal while
//! the old one still opens.

mod account;
mod key_file;

use std::{fmt, sync::Arc};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::Mac as _;
use secrecy::{ExposeSecret as _, SecretBox};

pub use key_file::{KeyFile, KeyFileError, KeyTextError};

use crate::secret;

/// Seals and opens upstream tokens and other records, and makes keyed hashes. Clones share their
/// keys.
#[derive(Clone)]
pub struct Sealer {
    /// Never empty. The last key seals and hashes, and all of them open.
    keys: Arc<[(u32, SecretBox<[u8; 32]>)]>,
}

/// The reason why a sealed record cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key with this number is not in the key file.
    #[error("the record was sealed with key {0}, which is not in the key file")]
    UnknownKey(u32),
    /// The record was sealed with another key of that number, for another record, or has been
    /// changed.
    #[error("the record was not sealed with the key of this broker, or has been changed")]
    Forged,
}

const FORMAT_VERSION: u8 = 1;
const NONCE_LENGTH: usize = 24;

impl Sealer {
    /// A sealer with one key, number 1.
    pub fn with_key(key: [u8; 32]) -> Self {
        Self {
            keys: [(1, SecretBox::new(Box::new(key)))].into(),
        }
    }

    /// Seals a record that is not an account. It opens only for the same kind and key; the kind
    /// must be a constant of the code that owns such records.
    #[must_use]
    pub fn seal_record(&self, kind: &'static str, key: &[u8], plain: &[u8]) -> Vec<u8> {
        self.seal_bytes(plain, &record_data(kind, key))
    }

    /// Opens a record that [`Sealer::seal_record`] sealed.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a later try fares no better.
    pub fn open_record(&self, kind: &'static str, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.open_bytes(sealed, &record_data(kind, key))
    }

    /// A value of each key, by its number, from which the key cannot be told.
    pub(crate) fn check_values(&self) -> impl Iterator<Item = (u32, [u8; 32])> {
        self.keys
            .iter()
            .map(|(number, key)| (*number, keyed_hash(key, "key check", &[])))
    }

    /// The number of the key that has sealed something.
    pub(crate) fn key_number(sealed: &[u8]) -> Option<u32> {
        let number = sealed.get(1..5)?;
        number.try_into().ok().map(u32::from_be_bytes)
    }

    fn seal_bytes(&self, plain: &[u8], associated_data: &[u8]) -> Vec<u8> {
        let (number, key) = self.current();
        let nonce: [u8; NONCE_LENGTH] = secret::random();
        let payload = Payload {
            msg: plain,
            aad: associated_data,
        };
        let ciphertext = cipher(key)
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a record is far shorter than the 256 GiB that the cipher takes");
        [&[FORMAT_VERSION], number.to_be_bytes().as_slice(), &nonce, &ciphertext].concat()
    }

    fn open_bytes(&self, sealed: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, OpenError> {
        let Some((&[FORMAT_VERSION, a, b, c, d], sealed)) = sealed.split_first_chunk() else {
            return Err(OpenError::Forged);
        };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LENGTH>().ok_or(OpenError::Forged)?;
        let number = u32::from_be_bytes([a, b, c, d]);
        let key = self.keys.iter().find(|(known, _)| *known == number);
        let (_, key) = key.ok_or(OpenError::UnknownKey(number))?;
        let payload = Payload {
            msg: ciphertext,
            aad: associated_data,
        };
        cipher(key)
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| OpenError::Forged)
    }

    /// HMAC-SHA-256 over a purpose and some parts, each preceded by its length, so that no two
    /// lists of parts are the same bytes. It cannot be made without the key.
    pub(crate) fn keyed_hash(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        keyed_hash(self.current().1, purpose, parts)
    }

    /// Verifies a keyed hash with all of the keys, in a time that does not depend on the place of a
    /// difference.
    pub(crate) fn matches_keyed_hash(&self, purpose: &str, parts: &[&str], hash: &[u8]) -> bool {
        self.keys
            .iter()
            .any(|(_, key)| secret::same(&keyed_hash(key, purpose, parts), hash))
    }

    fn current(&self) -> (u32, &SecretBox<[u8; 32]>) {
        let (number, key) = self.keys.last().expect("a sealer is made with one key at least");
        (*number, key)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = self.keys.iter().map(|(number, _)| *number).collect();
        f.debug_struct("Sealer").field("keys", &numbers).finish()
    }
}

/// The associated data of a record that is not an account. No account has its first words.
fn record_data(kind: &str, key: &[u8]) -> Vec<u8> {
    [format!("forgejo-mcp-broker record {kind} ").as_bytes(), key].concat()
}

fn keyed_hash(key: &SecretBox<[u8; 32]>, purpose: &str, parts: &[&str]) -> [u8; 32] {
    let mut mac =
        hmac::Hmac::<sha2::Sha256>::new_from_slice(key.expose_secret()).expect("HMAC takes a key of any length");
    for part in std::iter::once(&purpose).chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

fn cipher(key: &SecretBox<[u8; 32]>) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose_secret().into())
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{
        account::{ACCESS, REFRESH},
        *,
    };
    use crate::ids::UserId;

    fn token() -> SecretString {
        "gto_example".to_owned().into()
    }

    #[test]
    fn sealed_token_opens_for_its_record_only() {
        let sealer = Sealer::with_key([7; 32]);
        let sealed = sealer.seal_token(&token(), ACCESS, UserId(42));
        assert_eq!(
            sealer.open_token(&sealed, ACCESS, UserId(42)).unwrap().expose_secret(),
            "gto_example"
        );
        assert_eq!(
            sealer.open_token(&sealed, ACCESS, UserId(43)).unwrap_err(),
            OpenError::Forged
        );
        assert_eq!(
            sealer.open_token(&sealed, REFRESH, UserId(42)).unwrap_err(),
            OpenError::Forged
        );
    }

    #[test]
    fn other_key_does_not_open() {
        let sealed = Sealer::with_key([7; 32]).seal_token(&token(), ACCESS, UserId(42));
        let other = Sealer::with_key([8; 32]);
        assert_eq!(
            other.open_token(&sealed, ACCESS, UserId(42)).unwrap_err(),
            OpenError::Forged
        );
    }

    #[test]
    fn new_key_seals_and_old_key_still_opens() {
        let old = Sealer::with_key([7; 32]);
        let sealed = old.seal_token(&token(), REFRESH, UserId(1));
        let both = Sealer {
            keys: [
                (1, SecretBox::new(Box::new([7; 32]))),
                (2, SecretBox::new(Box::new([9; 32]))),
            ]
            .into(),
        };
        assert_eq!(
            both.open_token(&sealed, REFRESH, UserId(1)).unwrap().expose_secret(),
            "gto_example"
        );
        let resealed = both.seal_token(&token(), REFRESH, UserId(1));
        assert_eq!(
            old.open_token(&resealed, REFRESH, UserId(1)).unwrap_err(),
            OpenError::UnknownKey(2)
        );
    }

    #[test]
    fn sealed_record_opens_for_its_kind_and_key_only() {
        let sealer = Sealer::with_key([7; 32]);
        let sealed = sealer.seal_record("session", b"a", b"\xff plain");
        assert_eq!(sealer.open_record("session", b"a", &sealed).unwrap(), b"\xff plain");
        for (kind, key) in [("session", b"b"), ("other", b"a")] {
            assert_eq!(sealer.open_record(kind, key, &sealed).unwrap_err(), OpenError::Forged);
        }
        assert_eq!(
            sealer.open_token(&sealed, ACCESS, UserId(1)).unwrap_err(),
            OpenError::Forged
        );
    }

    #[test]
    fn changed_or_cut_bytes_do_not_open() {
        let sealer = Sealer::with_key([7; 32]);
        let sealed = sealer.seal_token(&token(), ACCESS, UserId(42));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open_token(&changed, ACCESS, UserId(42)).is_err(), "byte {at}");
            assert!(
                sealer.open_token(&sealed[..at], ACCESS, UserId(42)).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn keyed_hash_depends_on_key_purpose_and_boundaries_of_parts() {
        let sealer = Sealer::with_key([7; 32]);
        let hash = sealer.keyed_hash("a", &["bc", "d"]);
        assert_eq!(hash, sealer.keyed_hash("a", &["bc", "d"]));
        assert_ne!(hash, sealer.keyed_hash("a", &["b", "cd"]));
        assert_ne!(hash, sealer.keyed_hash("ab", &["c", "d"]));
        assert_ne!(hash, Sealer::with_key([8; 32]).keyed_hash("a", &["bc", "d"]));
    }

    #[test]
    fn hashes_of_old_key_verify_and_its_seals_are_not_current() {
        let old = Sealer::with_key([7; 32]);
        let both = Sealer {
            keys: [
                (1, SecretBox::new(Box::new([7; 32]))),
                (2, SecretBox::new(Box::new([9; 32]))),
            ]
            .into(),
        };
        let hash = old.keyed_hash("a", &["b"]);
        assert!(both.matches_keyed_hash("a", &["b"], &hash));
        assert!(both.matches_keyed_hash("a", &["b"], &both.keyed_hash("a", &["b"])));
        assert!(!both.matches_keyed_hash("a", &["c"], &hash));
        assert!(!old.matches_keyed_hash("a", &["b"], &both.keyed_hash("a", &["b"])));
        assert!(!both.is_current(&old.seal_token(&token(), ACCESS, UserId(1))));
        assert!(both.is_current(&both.seal_token(&token(), ACCESS, UserId(1))));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Sealer::with_key([7; 32])), "Sealer { keys: [1] }");
    }
}
