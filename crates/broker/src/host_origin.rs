//! Allowed hosts and origins.
//!
//! If a web page makes its own name resolve to the broker's address (DNS rebinding), its requests
//! still have that name as Host and its own origin as Origin. Both are checked against the
//! configuration before anything is looked up (MCP 2025-11-25, transports, "Security Warning").

use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};

use crate::{config::Config, http_error::HttpError};

const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The allow-lists.
#[derive(Debug)]
pub(crate) struct HostOriginPolicy {
    hosts: Vec<AllowedHost>,
    origins: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct AllowedHost {
    name: String,
    /// `None` allows any port.
    port: Option<u16>,
}

impl HostOriginPolicy {
    pub(crate) fn new(config: &Config) -> Self {
        let public = &config.public_url;
        let any_port = |name: &str| AllowedHost {
            name: normalize(name),
            port: None,
        };
        let mut hosts = vec![any_port(public.host())];
        if public.is_loopback() {
            hosts.extend(LOOPBACK_NAMES.map(any_port));
        }
        // Invalid entries are skipped, since no valid host could match them.
        let allowed = config.allowed_hosts.iter();
        hosts.extend(allowed.filter_map(|host| AllowedHost::parse(host.as_bytes())));
        let allowed = config.allowed_origins.iter();
        let allowed = allowed.map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        let origins = std::iter::once(public.origin().to_owned()).chain(allowed).collect();
        Self { hosts, origins }
    }

    /// Checks every host name in a request.
    ///
    /// HTTP/2 has it in the target, HTTP/1.1 in the header or in both (RFC 9112 section 3.2). All
    /// of them must be allowed.
    pub(crate) fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), HttpError> {
        let mut fields = headers.get_all(header::HOST).iter();
        let (field, second) = (fields.next(), fields.next());
        let target = uri.authority().map(Authority::as_str);
        if second.is_some() || (field.is_none() && target.is_none()) {
            // RFC 9112 section 3.2: no Host, or more than one, is a bad request.
            return Err(HttpError::BadHost);
        }
        let field = field.map(HeaderValue::as_bytes).into_iter();
        for name in field.chain(target.map(str::as_bytes)) {
            let host = AllowedHost::parse(name).ok_or(HttpError::BadHost)?;
            if !self.hosts.iter().any(|allowed| allowed.covers(&host)) {
                return Err(HttpError::HostNotAllowed);
            }
        }
        Ok(())
    }

    /// Checks the origin, if the request has one. Requests from outside a browser have none.
    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.as_bytes().to_ascii_lowercase();
            if !self.origins.iter().any(|allowed| allowed.as_bytes() == origin) {
                return Err(HttpError::OriginNotAllowed);
            }
        }
        Ok(())
    }

    /// The origin of a request, if it has one that is allowed.
    pub(crate) fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.check_origin(headers).ok().map(|()| origin.clone())
    }
}

impl AllowedHost {
    fn parse(value: &[u8]) -> Option<Self> {
        let authority = Authority::try_from(value).ok()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        Some(Self {
            name: normalize(authority.host()),
            port: authority.port_u16(),
        })
    }

    fn covers(&self, host: &Self) -> bool {
        self.name == host.name && (self.port.is_none() || self.port == host.port)
    }
}

/// Lower case, without the trailing dot of a fully qualified name.
fn normalize(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildInfo, PublicUrl};

    fn policy(public_url: &str) -> HostOriginPolicy {
        let build = BuildInfo {
            version: String::new(),
            revision: String::new(),
        };
        let mut config = Config::new(PublicUrl::parse(public_url).unwrap(), build);
        config.allowed_hosts = vec!["proxy.internal:8080".into(), "Alias.example".into()];
        config.allowed_origins = vec!["https://App.example/".into()];
        HostOriginPolicy::new(&config)
    }

    fn host(policy: &HostOriginPolicy, hosts: &[&str], target: &str) -> Result<(), HttpError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        policy.check_host(&target.parse().unwrap(), &headers)
    }

    #[test]
    fn only_listed_hosts_are_allowed() {
        let policy = policy("https://mcp.example");
        for good in [
            "mcp.example",
            "MCP.example:443",
            "mcp.example.",
            "alias.example:1",
            "proxy.internal:8080",
        ] {
            assert_eq!(host(&policy, &[good], "/mcp"), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "mcp.example.evil.example",
            "localhost",
            "127.0.0.1:8080",
            "proxy.internal",
        ] {
            assert_eq!(host(&policy, &[bad], "/mcp"), Err(HttpError::HostNotAllowed), "{bad}");
        }
        for odd in ["", "mcp.example@evil.example", "a b", "mcp.example/x"] {
            assert_eq!(host(&policy, &[odd], "/mcp"), Err(HttpError::BadHost), "{odd}");
        }
    }

    #[test]
    fn every_given_host_name_must_be_allowed() {
        let policy = policy("https://mcp.example");
        assert_eq!(host(&policy, &[], "https://mcp.example/mcp"), Ok(()));
        assert_eq!(host(&policy, &["mcp.example"], "https://mcp.example/mcp"), Ok(()));
        let mixed = host(&policy, &["mcp.example"], "https://evil.example/mcp");
        assert_eq!(mixed, Err(HttpError::HostNotAllowed));
        let mixed = host(&policy, &["evil.example"], "https://mcp.example/mcp");
        assert_eq!(mixed, Err(HttpError::HostNotAllowed));
        assert_eq!(host(&policy, &[], "/mcp"), Err(HttpError::BadHost));
        assert_eq!(
            host(&policy, &["mcp.example", "mcp.example"], "/mcp"),
            Err(HttpError::BadHost)
        );
    }

    #[test]
    fn loopback_broker_allows_all_loopback_names() {
        let policy = policy("http://127.0.0.1:8080");
        for good in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"] {
            assert_eq!(host(&policy, &[good], "/mcp"), Ok(()), "{good}");
        }
        assert_eq!(host(&policy, &["127.0.0.2"], "/"), Err(HttpError::HostNotAllowed));
    }

    #[test]
    fn origins_are_compared_as_a_whole() {
        let policy = policy("https://mcp.example");
        let check = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            policy.check_origin(&headers)
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["https://mcp.example"]), Ok(()));
        assert_eq!(check(&["https://app.example"]), Ok(()));
        for bad in [
            "null",
            "",
            "http://mcp.example",
            "https://mcp.example:8443",
            "https://mcp.example.evil",
        ] {
            assert_eq!(check(&[bad]), Err(HttpError::OriginNotAllowed), "{bad}");
        }
        assert_eq!(
            check(&["https://mcp.example", "https://evil.example"]),
            Err(HttpError::OriginNotAllowed)
        );
    }
}
