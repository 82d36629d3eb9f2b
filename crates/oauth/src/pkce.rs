//! Proof Key for Code Exchange, S256 only (RFC 7636). The broker's clients must use it, and the
//! broker uses it at Forgejo.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::secret;

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
pub(crate) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Returns whether a text has the form of an S256 challenge: base64url of 32 bytes, without
/// padding.
pub(crate) fn is_challenge(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// Returns whether a verifier is well-formed (RFC 7636 section 4.1) and yields the expected
/// challenge (section 4.6).
pub(crate) fn matches_challenge(verifier: &str, expected: &str) -> bool {
    let well_formed = (43..=128).contains(&verifier.len())
        && verifier
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    well_formed && secret::same(challenge(verifier).as_bytes(), expected.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_specification_verifies() {
        // RFC 7636 appendix B.
        assert_eq!(challenge(VERIFIER), CHALLENGE);
        assert!(is_challenge(CHALLENGE));
        assert!(matches_challenge(VERIFIER, CHALLENGE));
    }

    #[test]
    fn another_verifier_does_not_verify() {
        assert!(!matches_challenge(&VERIFIER.replace('d', "e"), CHALLENGE));
        assert!(!matches_challenge(CHALLENGE, CHALLENGE), "plain is not accepted");
    }

    #[test]
    fn a_malformed_verifier_does_not_verify() {
        assert!(!matches_challenge("abc", &challenge("abc")));
        let odd = format!("{VERIFIER}+");
        assert!(!matches_challenge(&odd, &challenge(&odd)));
    }

    #[test]
    fn a_text_that_is_not_a_hash_is_not_a_challenge() {
        assert!(!is_challenge("abc"));
        assert!(!is_challenge(&format!("{CHALLENGE}=")));
        assert!(!is_challenge(""));
    }
}
