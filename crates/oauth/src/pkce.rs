//! Proof Key for Code Exchange, S256 only (RFC 7636): the broker's clients must use it, and so does the broker at
//! Forgejo.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::secret;

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
pub(crate) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Whether a text can be an S256 challenge at all: base64url of 32 bytes, without padding.
pub(crate) fn is_challenge(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// Whether a verifier is well-formed (RFC 7636 section 4.1) and its challenge is the given one (section 4.6).
pub(crate) fn verifies(verifier: &str, expected: &str) -> bool {
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
        assert!(verifies(VERIFIER, CHALLENGE));
    }

    #[test]
    fn another_verifier_does_not() {
        assert!(!verifies(&VERIFIER.replace('d', "e"), CHALLENGE));
        assert!(!verifies(CHALLENGE, CHALLENGE), "plain is not a fall-back");
    }

    #[test]
    fn a_verifier_that_is_too_short_or_holds_other_characters_does_not() {
        assert!(!verifies("abc", &challenge("abc")));
        let odd = format!("{VERIFIER}+");
        assert!(!verifies(&odd, &challenge(&odd)));
    }

    #[test]
    fn what_is_no_hash_is_no_challenge() {
        assert!(!is_challenge("abc"));
        assert!(!is_challenge(&format!("{CHALLENGE}=")));
        assert!(!is_challenge(""));
    }
}
