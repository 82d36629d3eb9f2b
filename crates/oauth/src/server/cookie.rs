//! The cookie that tells one browser from another.
//!
//! It ties the browser in which a user said yes to the one that comes back from Forgejo: without it, someone could
//! say yes in theirs and have another user finish the sign-in (RFC 9700 section 4.7). It holds 256 random bits and
//! means nothing else. With https its name begins with `__Host-`, so that no neighbouring host can plant one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use crate::secret;

/// How long a browser keeps it after the last consent page, in seconds.
const MAX_AGE: u32 = 60 * 60;

/// The value of the cookie.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BrowserId(String);

impl BrowserId {
    /// A new one.
    pub(super) fn mint() -> Self {
        Self(URL_SAFE_NO_PAD.encode(secret::random::<32>()))
    }

    /// The one that a request brings. A value of another form is none.
    pub(super) fn of(headers: &HeaderMap, secure: bool) -> Option<Self> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name(secure))
            .map(|(_, value)| value)
            .filter(|value| URL_SAFE_NO_PAD.decode(value).is_ok_and(|bytes| bytes.len() == 32))
            .map(|value| Self(value.to_owned()))
    }

    /// The header that sets it.
    pub(super) fn set_cookie(&self, secure: bool) -> HeaderValue {
        let attributes = if secure { "; Secure" } else { "" };
        let text = format!(
            "{}={}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{attributes}",
            name(secure),
            self.0
        );
        HeaderValue::try_from(text).expect("base64url and attributes are printable ASCII")
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn name(secure: bool) -> &'static str {
    if secure { "__Host-fmb-browser" } else { "fmb-browser" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn what_is_set_is_what_is_found() {
        for secure in [true, false] {
            let id = BrowserId::mint();
            let set = id.set_cookie(secure);
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let found = BrowserId::of(&headers(&format!("a=b; {pair}; c=d")), secure);
            assert!(found == Some(id));
        }
    }

    #[test]
    fn with_https_only_the_host_cookie_counts() {
        let id = BrowserId::mint();
        let plain = format!("fmb-browser={}", id.as_str());
        assert!(BrowserId::of(&headers(&plain), true).is_none());
        let set = id.set_cookie(true);
        let set = set.to_str().unwrap();
        assert!(set.starts_with("__Host-") && set.contains("; Path=/;") && set.ends_with("; Secure"));
        assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax"));
    }

    #[test]
    fn a_value_of_another_form_is_none() {
        assert!(BrowserId::of(&headers("fmb-browser=abc"), false).is_none());
        assert!(BrowserId::of(&HeaderMap::new(), false).is_none());
    }
}
