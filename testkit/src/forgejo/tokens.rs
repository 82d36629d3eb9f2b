//! Tokens, codes, secrets and identifiers in the shapes of Forgejo's.
//!
//! Access and refresh tokens are JWTs that name a grant and nothing else: no issuer, audience,
//! subject or scope. They hold no random part, so two tokens for one grant made in the same second
//! are the same bytes.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(super) struct SigningKey([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) gnt: i64,
    pub(super) tt: u8,
    /// The value of the grant's counter that a refresh token belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cnt: Option<u64>,
    /// Expiry, seconds since the epoch.
    pub(super) exp: i64,
    /// Time of issue, seconds since the epoch.
    pub(super) iat: i64,
}

pub(super) const ACCESS: u8 = 0;
pub(super) const REFRESH: u8 = 1;

impl Default for SigningKey {
    fn default() -> Self {
        Self(random_bytes())
    }
}

impl SigningKey {
    pub(super) fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Signs claims as a JWT (RFC 7519) with HS256 (RFC 7515).
    pub(super) fn sign(&self, claims: &impl Serialize) -> String {
        let claims = serde_json::to_string(claims).expect("claims are JSON objects");
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// The claims of a token that this key signed and that has not expired at `now` (seconds since
    /// the epoch).
    pub(super) fn verify(&self, token: &str, now: i64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(signed).verify_slice(&signature).ok()?;
        let payload = BASE64_URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        (now < claims.exp).then_some(claims)
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC accepts a key of any length");
        mac.update(signed.as_bytes());
        mac
    }
}

/// An authorization code: `gta_` and 52 characters of base32.
pub(super) fn new_code() -> String {
    format!("gta_{}", random_base32())
}

/// A client secret: `gto_` and 52 characters of base32.
pub(super) fn new_secret() -> String {
    format!("gto_{}", random_base32())
}

/// A client id: a random UUID (RFC 9562, version 4).
pub(super) fn new_client_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(super) fn new_session_id() -> String {
    hex::encode(random_bytes::<16>())
}

/// Compares a verifier with its challenge (RFC 7636 section 4.6). Without a method there is no
/// challenge.
pub(super) fn pkce_matches(method: &str, challenge: &str, verifier: &str) -> bool {
    match method {
        "S256" => BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == challenge,
        "plain" => verifier == challenge,
        "" => true,
        _ => false,
    }
}

fn random_base32() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let letters = random_bytes::<52>().map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
    letters.iter().collect()
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("a machine without randomness cannot run these tests");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_names_its_grant_and_verifies_until_its_expiry_and_under_its_key_only() {
        let (key, other) = (SigningKey::default(), SigningKey::default());
        let [seven, eight] = [7, 8].map(|gnt| Claims {
            gnt,
            tt: ACCESS,
            cnt: None,
            exp: 200,
            iat: 100,
        });
        let token = key.sign(&seven);
        assert_eq!(key.sign(&seven), token);
        assert_ne!(key.sign(&eight), token);
        assert_eq!(key.verify(&token, 199), Some(seven));
        assert_eq!(key.verify(&token, 200), None);
        assert_eq!(other.verify(&token, 150), None);
        for bad in [format!("{token}A"), "garbage".to_owned()] {
            assert_eq!(key.verify(&bad, 150), None);
        }
    }

    #[test]
    fn identifiers_have_forgejos_shapes() {
        let (code, id) = (new_code(), new_client_id());
        assert_eq!((code.len(), code.starts_with("gta_")), (56, true));
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
    }

    #[test]
    fn pkce_is_checked() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        for (method, challenge, verifier, matches) in [
            ("S256", challenge, verifier, true),
            ("S256", challenge, challenge, false),
            ("plain", verifier, verifier, true),
            ("plain", challenge, verifier, false),
            ("", "", "", true),
        ] {
            assert_eq!(
                pkce_matches(method, challenge, verifier),
                matches,
                "{method} {challenge}"
            );
        }
    }
}
