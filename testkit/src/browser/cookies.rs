//! The cookies of a browser (RFC 6265, with the prefixes and `SameSite` of its successor draft).
//!
//! Cookies belong to a host; ports share them, as in real browsers. A `Secure` cookie is accepted
//! from https only, and a `__Host-` cookie only with `Secure`, `Path=/` and no `Domain`. Left out:
//! `Domain` (every cookie is host-only) and `Expires` (servers under test use `Max-Age`).

use http::{HeaderMap, Method, header::SET_COOKIE};
use url::Url;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    pub host: String,
    pub name: String,
    pub value: String,
    pub path: String,
    /// Sent over https only.
    pub secure: bool,
    same_site: SameSite,
}

/// The `SameSite` attribute; a cookie without it counts as lax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SameSite {
    /// Never sent on requests of another site.
    Strict,
    /// Sent on top-level GET requests of another site.
    Lax,
    /// Always sent.
    None,
}

#[derive(Debug, Default)]
pub(super) struct CookieJar(Vec<Cookie>);

impl CookieJar {
    pub(super) fn all(&self) -> &[Cookie] {
        &self.0
    }

    pub(super) fn store(&mut self, url: &Url, headers: &HeaderMap) {
        let lines = headers.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
        lines.for_each(|line| self.store_line(url, line));
    }

    fn store_line(&mut self, url: &Url, line: &str) {
        if let Some((cookie, expired)) = parse(url, line) {
            let key = |cookie: &Cookie| (cookie.host.clone(), cookie.name.clone(), cookie.path.clone());
            self.0.retain(|other| key(other) != key(&cookie));
            self.0.extend((!expired).then_some(cookie));
        }
    }

    /// The `Cookie` header for a request to `url`; `initiator` is the page that started it, unless
    /// the user did.
    pub(super) fn header(&self, method: &Method, url: &Url, initiator: Option<&Url>) -> Option<String> {
        let same_site = initiator.is_none_or(|page| page.host_str() == url.host_str());
        let sent = self.0.iter().filter(|cookie| cookie.matches(url));
        let sent = sent.filter(|cookie| same_site || cookie.may_cross_sites(method));
        let pairs: Vec<String> = sent.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

impl Cookie {
    fn matches(&self, url: &Url) -> bool {
        let below = url.path().strip_prefix(self.path.as_str());
        url.host_str() == Some(self.host.as_str())
            && (!self.secure || url.scheme() == "https")
            && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'))
    }

    fn may_cross_sites(&self, method: &Method) -> bool {
        match self.same_site {
            SameSite::Strict => false,
            SameSite::Lax => method == Method::GET,
            SameSite::None => true,
        }
    }
}

/// A cookie and whether it is expired, or nothing if a browser would refuse it.
fn parse(url: &Url, line: &str) -> Option<(Cookie, bool)> {
    let mut parts = line.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let mut cookie = Cookie {
        host: url.host_str()?.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
        path: default_path(url).to_owned(),
        secure: false,
        same_site: SameSite::Lax,
    };
    let (mut expired, mut domain) = (false, false);
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        let lower = value.to_ascii_lowercase();
        match (attribute.to_ascii_lowercase().as_str(), lower.as_str()) {
            ("path", _) if value.starts_with('/') => value.clone_into(&mut cookie.path),
            ("secure", _) => cookie.secure = true,
            ("domain", _) => domain = true,
            ("max-age", age) => expired = age.parse::<i64>().is_ok_and(|age| age <= 0),
            ("samesite", "strict") => cookie.same_site = SameSite::Strict,
            ("samesite", "none") => cookie.same_site = SameSite::None,
            _ => {}
        }
    }
    let for_host = cookie.secure && cookie.path == "/" && !domain;
    let refused = (cookie.secure && url.scheme() != "https")
        || (name.starts_with("__Host-") && !for_host)
        || (name.starts_with("__Secure-") && !cookie.secure)
        || (cookie.same_site == SameSite::None && !cookie.secure);
    (!refused).then_some((cookie, expired))
}

/// RFC 6265 section 5.1.4.
fn default_path(url: &Url) -> &str {
    match url.path().rsplit_once('/') {
        Some((directory, _)) if !directory.is_empty() => directory,
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jar(url: &str, lines: &[&str]) -> CookieJar {
        let (mut jar, url) = (CookieJar::default(), url.parse().unwrap());
        lines.iter().for_each(|line| jar.store_line(&url, line));
        jar
    }

    fn sent(jar: &CookieJar, url: &str) -> String {
        jar.header(&Method::GET, &url.parse().unwrap(), None)
            .unwrap_or_default()
    }

    #[test]
    fn ports_share_cookies_and_hosts_do_not() {
        let jar = jar("http://127.0.0.1:1/login", &["a=1; Path=/"]);
        assert_eq!(sent(&jar, "http://127.0.0.1:2/other"), "a=1");
        assert_eq!(sent(&jar, "http://localhost:1/login"), "");
    }

    #[test]
    fn path_bounds_a_cookie() {
        let jar = jar("http://h/oauth/authorize", &["a=1", "b=2; Path=/oauth/callback"]);
        assert_eq!(sent(&jar, "http://h/oauth/token"), "a=1");
        assert_eq!(sent(&jar, "http://h/oauth/callback"), "a=1; b=2");
        assert_eq!(sent(&jar, "http://h/oauthother"), "");
    }

    #[test]
    fn later_cookie_replaces_and_max_age_0_removes() {
        assert_eq!(sent(&jar("http://h/", &["a=1", "a=2"]), "http://h/"), "a=2");
        assert_eq!(jar("http://h/", &["a=1", "a=2", "a=; Max-Age=0"]).all(), []);
    }

    #[test]
    fn secure_and_host_prefixed_cookies_need_https() {
        assert_eq!(jar("http://h/", &["a=1; Secure", "__Host-b=1; Path=/"]).all(), []);
        let lines = [
            "__Host-a=1; Secure; Path=/",
            "__Host-b=1; Secure; Path=/x",
            "__Host-c=1; Secure; Path=/; Domain=h",
        ];
        let jar = jar("https://h/", &lines);
        assert_eq!(sent(&jar, "https://h/"), "__Host-a=1");
        assert_eq!(sent(&jar, "http://h/"), "");
    }

    #[test]
    fn same_site_bounds_the_cookies_of_other_sites_requests() {
        let lines = [
            "strict=1; SameSite=Strict",
            "lax=1; SameSite=Lax",
            "bare=1",
            "none=1; SameSite=None; Secure",
        ];
        let jar = jar("https://h/", &lines);
        for (method, page, expected) in [
            (Method::POST, "https://h/", "strict=1; lax=1; bare=1; none=1"),
            (Method::GET, "https://other/", "lax=1; bare=1; none=1"),
            (Method::POST, "https://other/", "none=1"),
        ] {
            let (here, page) = ("https://h/".parse().unwrap(), page.parse().unwrap());
            assert_eq!(jar.header(&method, &here, Some(&page)).unwrap(), expected);
        }
    }
}
