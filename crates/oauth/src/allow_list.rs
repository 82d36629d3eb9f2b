//! The allow-lists for clients: by the redirect URI, or by the host of the metadata document.
//!
//! Entries for redirect URIs: `example.org` (this host, https), `*.example.org` (hosts below it),
//! `localhost` (this machine, in all its spellings), `cursor:` (a private scheme). Entries for
//! metadata documents: the first two forms.

use url::Url;

use crate::{host_name, redirect_uri};

/// The two lists, with checked entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowList {
    redirect_hosts: Vec<Entry>,
    client_domains: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Host(String),
    Below(String),
    Loopback,
    Scheme(String),
}

impl AllowList {
    /// Reads both lists.
    ///
    /// # Errors
    ///
    /// The invalid entries, each with `true` if it is in the list of redirect hosts.
    pub(crate) fn read(redirect_hosts: &[String], client_domains: &[String]) -> Result<Self, Vec<(bool, String)>> {
        let mut invalid = Vec::new();
        let mut read = |list: &[String], is_redirect: bool| {
            let mut entries = Vec::new();
            for text in list {
                match Entry::read(text) {
                    Some(entry) if is_redirect || matches!(entry, Entry::Host(_) | Entry::Below(_)) => {
                        entries.push(entry);
                    }
                    Some(_) | None => invalid.push((is_redirect, text.clone())),
                }
            }
            entries
        };
        let list = Self {
            redirect_hosts: read(redirect_hosts, true),
            client_domains: read(client_domains, false),
        };
        if invalid.is_empty() { Ok(list) } else { Err(invalid) }
    }

    /// Reports whether any redirect URI is allowed.
    pub(crate) fn has_redirect_hosts(&self) -> bool {
        !self.redirect_hosts.is_empty()
    }

    /// Reports whether any metadata document is allowed.
    pub(crate) fn has_client_domains(&self) -> bool {
        !self.client_domains.is_empty()
    }

    /// Reports whether a client may register this redirect URI.
    pub(crate) fn allows_redirect(&self, uri: &str) -> bool {
        let Ok(url) = Url::parse(uri) else {
            return false;
        };
        self.redirect_hosts.iter().any(|entry| match entry {
            Entry::Loopback => matches!(url.scheme(), "http" | "https") && redirect_uri::is_loopback(&url),
            Entry::Scheme(scheme) => url.scheme() == scheme,
            Entry::Host(_) | Entry::Below(_) => url.scheme() == "https" && entry.covers(url.host_str()),
        })
    }

    /// Reports whether a client may have a metadata document at this URL.
    pub(crate) fn allows_document(&self, url: &Url) -> bool {
        self.client_domains.iter().any(|entry| entry.covers(url.host_str()))
    }
}

impl Entry {
    fn read(text: &str) -> Option<Self> {
        if text == "localhost" {
            return Some(Self::Loopback);
        }
        if let Some(scheme) = text.strip_suffix(':') {
            let probe = format!("{scheme}://callback");
            let is_private = !matches!(scheme, "http" | "https") && redirect_uri::check(&probe).is_ok();
            // The parser ignores case.
            return (is_private && scheme == scheme.to_ascii_lowercase()).then(|| Self::Scheme(scheme.to_owned()));
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if !host_name::is_host(name) {
            return None;
        }
        Some(if below {
            Self::Below(name.to_owned())
        } else {
            Self::Host(name.to_owned())
        })
    }

    fn covers(&self, host: Option<&str>) -> bool {
        let Some(host) = host else {
            return false;
        };
        match self {
            Self::Host(name) => host == name,
            Self::Below(name) => host_name::is_below(host, name),
            Self::Loopback | Self::Scheme(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(redirect_hosts: &[&str], client_domains: &[&str]) -> Result<AllowList, Vec<(bool, String)>> {
        let owned = |list: &[&str]| list.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>();
        AllowList::read(&owned(redirect_hosts), &owned(client_domains))
    }

    #[test]
    fn redirect_uris_match_by_host_and_scheme() {
        let list = list(&["claude.ai", "*.example.org", "localhost", "cursor:"], &[]).unwrap();
        for allowed in [
            "https://claude.ai/api/mcp/auth_callback",
            "https://claude.ai:8443/x",
            "https://a.example.org/",
            "https://a.b.example.org/",
            "http://localhost:33418/",
            "http://127.0.0.1/callback",
            "http://[::1]:1/",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ] {
            assert!(list.allows_redirect(allowed), "{allowed}");
        }
        for refused in [
            "https://claude.ai.evil.example/",
            "https://notclaude.ai/",
            "https://example.org/",
            "https://evilexample.org/",
            "cursors://x/",
            "vscode://x/",
            "cursor.evil://x/",
            "claude.ai://x/",
            "nonsense",
        ] {
            assert!(!list.allows_redirect(refused), "{refused}");
        }
    }

    #[test]
    fn documents_match_by_host() {
        let list = list(&[], &["claude.ai", "*.example.org"]).unwrap();
        let allows = |url: &str| list.allows_document(&Url::parse(url).unwrap());
        assert!(allows("https://claude.ai/x") && allows("https://a.example.org/x"));
        assert!(!allows("https://www.claude.ai/x") && !allows("https://example.org/x"));
        assert!(!list.allows_redirect("https://claude.ai/"));
    }

    #[test]
    fn invalid_entry_is_reported() {
        for bad in [
            "",
            "*",
            "*.",
            "https://claude.ai",
            "claude.ai/",
            "claude.ai:443",
            "CLAUDE.ai",
            "a b",
            "javascript:",
            "https:",
            "Cursor:",
            "*.*.example.org",
            "user@claude.ai",
            "a.ai?b",
            "a.ai#b",
        ] {
            assert_eq!(list(&[bad], &[]).unwrap_err(), [(true, bad.to_owned())], "{bad}");
        }
        assert_eq!(list(&[], &["cursor:"]).unwrap_err(), [(false, "cursor:".to_owned())]);
        assert_eq!(
            list(&[], &["localhost"]).unwrap_err(),
            [(false, "localhost".to_owned())]
        );
    }
}
