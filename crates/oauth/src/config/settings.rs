//! A valid configuration with the values that derive from it.

use url::Url;

use super::{Config, Registration, StaticClient};
use crate::{allow_list::AllowList, block_list::BlockList, records::ClientRecord};

/// A valid configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// `scheme://host[:port]` of the issuer.
    pub(crate) origin: String,
    /// The path of the issuer: empty, or `/prefix` without a slash at the end.
    pub(crate) prefix: String,
    /// The protected resource (RFC 8707): the MCP endpoint.
    pub(crate) resource: String,
    /// Cookies can be `Secure`.
    pub(crate) secure: bool,
    pub(crate) allow_list: AllowList,
    pub(crate) block_list: BlockList,
    pub(crate) clients: Vec<ClientRecord>,
}

impl Settings {
    pub(super) fn new(config: Config, url: &Url, allow_list: AllowList, block_list: BlockList) -> Self {
        Self {
            origin: url.origin().ascii_serialization(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            resource: format!("{}/mcp", config.public_url),
            secure: url.scheme() == "https",
            allow_list,
            block_list,
            clients: config.clients.iter().map(StaticClient::to_record).collect(),
            config,
        }
    }

    /// The issuer, byte-identical to `public_url`.
    pub(crate) fn issuer(&self) -> &str {
        &self.config.public_url
    }

    /// The URL of an endpoint.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        format!("{}/oauth/{name}", self.issuer())
    }

    /// Returns whether `resource` names the protected resource (RFC 8707 section 2): absent, exact,
    /// or with a slash at the end. The case of scheme and host does not count (MCP 2026-07-28
    /// authorization, "Canonical Server URI").
    pub(crate) fn is_resource(&self, resource: Option<&str>) -> bool {
        let Some(resource) = resource else {
            return true;
        };
        let resource = resource.strip_suffix('/').unwrap_or(resource);
        let at = self.origin.len();
        match (resource.split_at_checked(at), self.resource.split_at_checked(at)) {
            (Some((origin, path)), Some((own_origin, own_path))) => {
                origin.eq_ignore_ascii_case(own_origin) && path == own_path
            }
            _ => false,
        }
    }

    /// Returns whether any client may register itself.
    pub(crate) fn allows_registration(&self) -> bool {
        self.admits_clients(self.allow_list.has_redirect_hosts())
    }

    /// Returns whether any client may be described by a document.
    pub(crate) fn allows_documents(&self) -> bool {
        self.config.cimd && self.admits_clients(self.allow_list.has_client_domains())
    }

    fn admits_clients(&self, is_any_listed: bool) -> bool {
        match self.config.registration {
            Registration::Open => true,
            Registration::AllowList => is_any_listed,
            Registration::Closed => false,
        }
    }

    /// Returns whether the configuration alone still allows a login that was allowed at sign-in.
    /// Members of an organization stay allowed until Forgejo is asked again.
    pub(crate) fn still_allows(&self, login: &str) -> bool {
        self.allows_everyone() || !self.config.allowed_orgs.is_empty() || self.lists_user(login)
    }

    /// Returns whether both allow-lists of users are empty.
    pub(crate) fn allows_everyone(&self) -> bool {
        self.config.allowed_users.is_empty() && self.config.allowed_orgs.is_empty()
    }

    /// Returns whether a login is on the list of users. Forgejo's logins are unique regardless of
    /// case.
    pub(crate) fn lists_user(&self, login: &str) -> bool {
        let mut users = self.config.allowed_users.iter();
        users.any(|listed| listed.eq_ignore_ascii_case(login))
    }
}
