//! Cookies: how they are read and set, and the one that tells one browser from another.
//!
//! [`BrowserId`] ties the browser in which a user said yes to the one that comes back from Forgejo: without it, someone
//! could say yes in theirs and have another user finish the sign-in (RFC 9700 section 4.7). It holds 256 random bits
//! and means nothing else. With https the names of all cookies begin with `__Host-`, so that no neighbouring host can
//! plant one (RFC 6265bis section 4.1.3.2).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use crate::secret;

/// The value of the cookie that tells one browser from another.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BrowserId(String);

/// A kind of cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CookieKind {
    /// The name without its prefix.
    name: &'static str,
    /// How long a browser keeps it, in seconds.
    max_age: u64,
}

/// The browser, for an hour after the last page that needs it.
const BROWSER: CookieKind = CookieKind::new("fmb-browser", 60 * 60);

impl CookieKind {
    pub(super) const fn new(name: &'static str, max_age: u64) -> Self {
        Self { name, max_age }
    }

    /// The value that a request brings. Of several with one name the first counts, the one with the longest path.
    pub(super) fn read(self, headers: &HeaderMap, secure: bool) -> Option<&str> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| name.strip_prefix(prefix(secure)) == Some(self.name))
            .map(|(_, value)| value)
    }

    /// The header that sets it. `None` for a value that cannot stand in one.
    pub(super) fn set(self, value: &str, secure: bool) -> Option<HeaderValue> {
        self.header(value, self.max_age, secure)
    }

    /// The header that takes it away.
    pub(super) fn clear(self, secure: bool) -> Option<HeaderValue> {
        self.header("", 0, secure)
    }

    /// `Lax` and not `Strict`: the browser comes back from Forgejo by a redirect of another site.
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
    /// A new one.
    pub(super) fn mint() -> Self {
        Self(URL_SAFE_NO_PAD.encode(secret::random::<32>()))
    }

    /// The one that a request brings. A value of another form is none.
    pub(super) fn of(headers: &HeaderMap, secure: bool) -> Option<Self> {
        BROWSER
            .read(headers, secure)
            .filter(|value| URL_SAFE_NO_PAD.decode(value).is_ok_and(|bytes| bytes.len() == 32))
            .map(|value| Self(value.to_owned()))
    }

    /// The header that sets it.
    pub(super) fn set_cookie(&self, secure: bool) -> Option<HeaderValue> {
        BROWSER.set(&self.0, secure)
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
    fn what_is_set_is_what_is_found() {
        for secure in [true, false] {
            let id = BrowserId::mint();
            let set = id.set_cookie(secure).unwrap();
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
        let set = id.set_cookie(true).unwrap();
        let set = set.to_str().unwrap();
        assert!(set.starts_with("__Host-") && set.contains("; Path=/;") && set.ends_with("; Secure"));
        assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax"));
    }

    #[test]
    fn a_value_of_another_form_is_none() {
        assert!(BrowserId::of(&headers("fmb-browser=abc"), false).is_none());
        assert!(BrowserId::of(&HeaderMap::new(), false).is_none());
    }

    #[test]
    fn what_is_taken_away_is_empty_and_over() {
        let cleared = BROWSER.clear(true).unwrap();
        assert!(
            cleared
                .to_str()
                .unwrap()
                .starts_with("__Host-fmb-browser=; Path=/; Max-Age=0;")
        );
    }
}
