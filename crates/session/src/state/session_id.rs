//! Session ids, the names of implicit sessions, and the keys of both.
//!
//! An id is a bearer secret: with it and the grant anyone can use the session. It exists here only
//! between its generation and the response that carries it. Everything else holds its
//! [`SessionKey`], a SHA-256, so that neither the table nor a log nor a core dump reveals an id,
//! and a lookup compares hashes rather than secrets.

use std::sync::Arc;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use crate::ports::{GrantId, SessionKey};

/// The random bytes of an id: 192 bits.
const ID_BYTES: usize = 24;
/// The length of an id on the wire.
const ID_CHARS: usize = ID_BYTES * 2;
/// The bytes of the key that the tag shows.
const TAG_BYTES: usize = 4;

/// Separates the keys of implicit sessions from those of ids, which have no spaces.
const IMPLICIT_DOMAIN: &[u8] = b"implicit session of a grant";

/// Names an implicit session of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImplicitName {
    /// The name that the host has given.
    Given([u8; 16]),
    /// From the handshake of the session that the grant's last `initialize` has opened; `None`: the
    /// grant has never initialized.
    LastInitialize(Option<SessionKey>),
}

/// A fresh session id: 48 lower-case hexadecimal characters.
pub(crate) struct SessionId(String);

impl SessionId {
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes)))
    }

    pub(crate) fn key(&self) -> SessionKey {
        SessionKey::of(self.0.as_bytes())
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        let mut value = HeaderValue::try_from(self.0).expect("hexadecimal characters are a valid header value");
        value.set_sensitive(true);
        value
    }
}

impl SessionKey {
    /// The key of an id as a client sent it; `None` if the value does not have the form of an id.
    pub(crate) fn from_header(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let well_formed = bytes.len() == ID_CHARS && bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| Self::of(bytes))
    }

    /// A short name for logs and for the list of sessions in the answer about a reached quota.
    pub(crate) fn tag(&self) -> Arc<str> {
        hex::encode(&self.0[..TAG_BYTES]).into()
    }

    /// One of `buckets` buckets. Hashes are spread evenly.
    pub(crate) fn bucket(&self, buckets: usize) -> usize {
        let [high, low, ..] = self.0;
        usize::from(u16::from_be_bytes([high, low])) % buckets
    }

    /// The key of an implicit session: the same in every registry, and no id has it.
    pub(crate) fn implicit(grant: &GrantId, name: ImplicitName) -> Self {
        let (kind, name) = match &name {
            ImplicitName::Given(name) => (0_u8, &name[..]),
            ImplicitName::LastInitialize(Some(key)) => (1, &key.0[..]),
            ImplicitName::LastInitialize(None) => (2, &[][..]),
        };
        let hash = Sha256::new()
            .chain_update(IMPLICIT_DOMAIN)
            .chain_update([kind])
            .chain_update(grant.0.len().to_be_bytes())
            .chain_update(&*grant.0)
            .chain_update(name);
        Self(hash.finalize().into())
    }

    fn of(id: &[u8]) -> Self {
        Self(Sha256::digest(id).into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_48_lower_case_hex_characters_and_differ() {
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let id = SessionId::generate().unwrap();
            let key = id.key();
            let header = id.into_header();
            assert_eq!(header.len(), 48);
            assert!(
                header
                    .as_bytes()
                    .iter()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
            );
            assert_eq!(SessionKey::from_header(&header), Some(key));
            assert!(seen.insert(header));
        }
    }

    #[test]
    fn malformed_ids_have_no_key() {
        for wrong in [
            "",
            "abc",
            &"A".repeat(48),
            &"g".repeat(48),
            &"a".repeat(47),
            &"a".repeat(49),
        ] {
            let value = HeaderValue::from_str(wrong).unwrap();
            assert_eq!(SessionKey::from_header(&value), None, "{wrong:?}");
        }
    }

    #[test]
    fn implicit_sessions_of_different_grants_and_names_have_different_keys() {
        let names = [
            ImplicitName::Given([0; 16]),
            ImplicitName::Given([1; 16]),
            ImplicitName::LastInitialize(None),
            ImplicitName::LastInitialize(Some(SessionKey([0; 32]))),
            ImplicitName::LastInitialize(Some(SessionKey([1; 32]))),
        ];
        let keys = ["a", "b", ""].map(|grant| names.map(|name| SessionKey::implicit(&GrantId(grant.into()), name)));
        let distinct: HashSet<_> = keys.iter().flatten().collect();
        assert_eq!(distinct.len(), 15);
        let again = SessionKey::implicit(&GrantId("a".into()), names[0]);
        assert_eq!(again, keys[0][0]);
    }

    #[test]
    fn neither_the_tag_nor_debug_shows_the_id() {
        let id = SessionId::generate().unwrap();
        let key = id.key();
        let header = id.into_header();
        assert!(!header.to_str().unwrap().contains(&*key.tag()));
        assert!(!format!("{key:?} {header:?}").contains(&header.to_str().unwrap()[..8]));
    }
}
