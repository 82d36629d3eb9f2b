//! Cookies: reading and setting them, and the cookie that identifies a browser.
//!
//! [`BrowserId`] ties the browser in which a user consents to the one that returns from Forgejo.
//! Without it, an attacker could consent in their own browser and have another user finish the
//! sign-in (RFC 9700 section 4.7). It consists of 256 random bits without further meaning. With
//! https the names of all cookies begin with `__Host-`, so that no neighboring host can plant one
//! (RFC 6265bis section 4.1.3.2). The values are base64url.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use crate::secret;

/// The value of the cookie that identifies a browser.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BrowserId(String);

/// A kind of cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CookieKind {
    /// The name without its prefix.
    name: &'static str,
    /// The time for which a browser keeps it, in seconds.
    max_age: u64,
}

/// Identifies the browser for an hour after the last page that needs it.
const BROWSER: CookieKind = CookieKind::new("fmb-browser", 60 * 60);

impl CookieKind {
    pub(super) const fn new(name: &'static str, max_age: u64) -> Self {
        Self { name, max_age }
    }

    /// The value in a request. Browsers send the cookie with the longest path first, and the first
    /// of a name counts.
    pub(super) fn read(self, headers: &HeaderMap, secure: bool) -> Option<Vec<u8>> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| name.strip_prefix(prefix(secure)) == Some(self.name))
            .and_then(|(_, value)| URL_SAFE_NO_PAD.decode(value).ok())
    }

    /// The header that sets it.
    pub(super) fn set(self, value: &[u8], secure: bool) -> Option<HeaderValue> {
        self.header(&URL_SAFE_NO_PAD.encode(value), self.max_age, secure)
    }

    /// The header that removes it.
    pub(super) fn clear(self, secure: bool) -> Option<HeaderValue> {
        self.header("", 0, secure)
    }

    /// `Lax` and not `Strict`: the browser returns from Forgejo by a redirect of another site.
    fn header(self, value: &str, max_age: u64, secure: bool) -> Option<HeaderValue> {
        let attributes = if secure { "; Secure" } else { "" };
        let text = format!(
            "{}{}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{attributes}",
            prefix(secure),
            self.name
        );
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl BrowserId {
    pub(super) fn mint() -> Self {
        Self(URL_SAFE_NO_PAD.encode(secret::random::<32>()))
    }

    pub(super) fn from_headers(headers: &HeaderMap, secure: bool) -> Option<Self> {
        let bytes = BROWSER.read(headers, secure).filter(|bytes| bytes.len() == 32)?;
        Some(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub(super) fn set_cookie(&self, secure: bool) -> Option<HeaderValue> {
        BROWSER.header(&self.0, BROWSER.max_age, secure)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn prefix(secure: bool) -> &'static str {
    if secure { "__Host-" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn a_cookie_that_is_set_is_read_back() {
        for secure in [true, false] {
            let id = BrowserId::mint();
            let set = id.set_cookie(secure).unwrap();
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let found = BrowserId::from_headers(&headers(&format!("a=b; {pair}; c=d")), secure);
            assert!(found == Some(id));
        }
    }

    #[test]
    fn with_https_only_the_host_cookie_is_read() {
        let id = BrowserId::mint();
        let plain = format!("fmb-browser={}", id.as_str());
        assert!(BrowserId::from_headers(&headers(&plain), true).is_none());
        let set = id.set_cookie(true).unwrap();
        let set = set.to_str().unwrap();
        assert!(set.starts_with("__Host-") && set.contains("; Path=/;") && set.ends_with("; Secure"));
        assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax"));
    }

    #[test]
    fn a_malformed_browser_id_is_ignored() {
        assert!(BrowserId::from_headers(&headers("fmb-browser=abc"), false).is_none());
        assert!(BrowserId::from_headers(&HeaderMap::new(), false).is_none());
    }

    #[test]
    fn a_cleared_cookie_is_empty_and_expired() {
        let cleared = BROWSER.clear(true).unwrap();
        assert!(
            cleared
                .to_str()
                .unwrap()
                .starts_with("__Host-fmb-browser=; Path=/; Max-Age=0;")
        );
    }
}
