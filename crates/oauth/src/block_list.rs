//! The clients that the operator has blocked: by identifier, or by a host of their document or of
//! a redirect URI.

use url::Url;

use crate::{cimd, host_name, ids::ClientId, records::ClientRecord};

/// The list, with checked entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockList {
    /// Client identifiers and hosts: an entry can be either.
    names: Vec<String>,
    /// The domains of entries such as `*.example.org`.
    domains: Vec<String>,
}

impl BlockList {
    /// Reads the list.
    ///
    /// # Errors
    ///
    /// The invalid entries.
    pub(crate) fn read(entries: &[String]) -> Result<Self, Vec<String>> {
        let mut list = Self::default();
        let mut invalid = Vec::new();
        for entry in entries {
            match entry.strip_prefix("*.") {
                Some(domain) if host_name::is_host(&domain.to_ascii_lowercase()) => {
                    list.domains.push(domain.to_ascii_lowercase());
                }
                None if is_name(entry) => list.names.push(entry.clone()),
                Some(_) | None => invalid.push(entry.clone()),
            }
        }
        if invalid.is_empty() { Ok(list) } else { Err(invalid) }
    }

    /// Returns whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.domains.is_empty()
    }

    /// Returns whether a client is blocked by its identifier or by the host of its document.
    pub(crate) fn blocks_id(&self, client_id: &ClientId) -> bool {
        self.names.contains(&client_id.0) || cimd::is_url(&client_id.0) && self.blocks_uri(&client_id.0)
    }

    /// Returns whether a client is blocked, also by a host of its redirect URIs.
    pub(crate) fn blocks(&self, client: &ClientRecord) -> bool {
        self.blocks_id(&client.client_id) || client.redirect_uris.iter().any(|uri| self.blocks_uri(uri))
    }

    /// Returns whether the host of a URI is blocked.
    pub(crate) fn blocks_uri(&self, uri: &str) -> bool {
        let Ok(url) = Url::parse(uri) else {
            return false;
        };
        let Some(host) = url.host_str().map(|host| host.trim_end_matches('.')) else {
            return false;
        };
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
            || self.domains.iter().any(|domain| host_name::is_below(host, domain))
    }
}

/// Returns whether an entry can be a client identifier or a host.
fn is_name(entry: &str) -> bool {
    !entry.is_empty() && entry.bytes().all(|b| b.is_ascii_graphic() && b != b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<BlockList, Vec<String>> {
        BlockList::read(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn identifiers_hosts_and_domains_are_blocked() {
        let list = list(&[
            "fmb_client_1",
            "https://a.example/client.json",
            "Evil.example",
            "*.bad.example",
        ])
        .unwrap();
        let blocks_id = |id: &str| list.blocks_id(&ClientId(id.to_owned()));
        for id in [
            "fmb_client_1",
            "https://a.example/client.json",
            "https://evil.example/x",
            "https://EVIL.example:8443/x",
            "https://evil.example./x",
            "https://one.bad.example/x",
            "https://a.one.bad.example/x",
        ] {
            assert!(blocks_id(id), "{id}");
        }
        for id in [
            "fmb_client_2",
            "https://a.example/other.json",
            "https://sub.evil.example/x",
            "https://bad.example/x",
            "https://notbad.example/x",
            "https://evil.example.good.example/x",
            "https://good.example/evil.example",
        ] {
            assert!(!blocks_id(id), "{id}");
        }
        assert!(list.blocks_uri("https://evil.example/callback"));
        assert!(!list.blocks_uri("com.evil.example:/callback"));
    }

    #[test]
    fn invalid_entry_of_a_block_list_is_reported() {
        for entry in [
            "",
            "*",
            "*.",
            "a b",
            "*.*.example",
            "x.*",
            "*.exa mple",
            "*.a/b",
            "\u{e9}.example",
        ] {
            assert_eq!(list(&[entry]).unwrap_err(), [entry], "{entry}");
        }
        assert!(list(&[]).unwrap().is_empty());
    }
}
