//! The public URL, under which clients reach the broker.
//!
//! It is configured and never derived from a request. The path prefix has no trailing slash.

use std::net::IpAddr;

use http::Uri;

/// A parsed public URL: scheme, host, port, path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    host: String,
    prefix: String,
}

/// Why a public URL is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// It is not an absolute URL.
    #[error("must be an absolute URL")]
    NotAbsolute,
    /// Its scheme is neither `http` nor `https`.
    #[error("must have the scheme http or https")]
    Scheme,
    /// It is `http` on a host that is not loopback.
    #[error("must be https, except on a loopback host")]
    Insecure,
    /// It has a user name, a query or a fragment.
    #[error("must not have a user name, a query or a fragment")]
    Extra,
}

impl PublicUrl {
    /// Parses a public URL.
    ///
    /// # Errors
    ///
    /// [`PublicUrlError`] if it is invalid.
    pub fn parse(url: &str) -> Result<Self, PublicUrlError> {
        // `Uri` silently drops a fragment.
        if url.contains('#') {
            return Err(PublicUrlError::Extra);
        }
        let uri: Uri = url.parse().map_err(|_| PublicUrlError::NotAbsolute)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(PublicUrlError::NotAbsolute);
        };
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(PublicUrlError::Extra);
        }
        let host = authority.host().to_ascii_lowercase();
        let default_port = match scheme {
            "https" => 443,
            "http" if is_loopback(&host) => 80,
            "http" => return Err(PublicUrlError::Insecure),
            _ => return Err(PublicUrlError::Scheme),
        };
        let port = authority.port_u16().filter(|port| *port != default_port);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            origin: format!("{scheme}://{host}{port}"),
            host,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The origin as browsers write it (RFC 6454 section 6.2).
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The host in lower case, without the port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path prefix: empty, or `/like/this`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns true if the host is a loopback name or address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The URL of the MCP endpoint.
    pub fn mcp(&self) -> String {
        format!("{}{}/mcp", self.origin, self.prefix)
    }
}

/// `localhost` and the loopback addresses, as written in a URL.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_port_case_and_trailing_slash_are_normalized() {
        for (url, origin, prefix) in [
            ("https://Mcp.Example", "https://mcp.example", ""),
            ("https://mcp.example:443/", "https://mcp.example", ""),
            ("https://mcp.example:8443/a/b/", "https://mcp.example:8443", "/a/b"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", ""),
            ("http://[::1]:80/x", "http://[::1]", "/x"),
            ("http://localhost:443", "http://localhost:443", ""),
        ] {
            let parsed = PublicUrl::parse(url).unwrap();
            assert_eq!((parsed.origin(), parsed.prefix()), (origin, prefix), "{url}");
            assert_eq!(parsed.mcp(), format!("{origin}{prefix}/mcp"));
        }
    }

    #[test]
    fn invalid_public_urls_are_rejected() {
        for (url, error) in [
            ("mcp.example", PublicUrlError::NotAbsolute),
            ("/mcp", PublicUrlError::NotAbsolute),
            ("ftp://mcp.example", PublicUrlError::Scheme),
            ("http://mcp.example", PublicUrlError::Insecure),
            ("http://127.0.0.1.example", PublicUrlError::Insecure),
            ("https://a@mcp.example", PublicUrlError::Extra),
            ("https://mcp.example/?q", PublicUrlError::Extra),
            ("https://mcp.example/#f", PublicUrlError::Extra),
        ] {
            assert_eq!(PublicUrl::parse(url), Err(error), "{url}");
        }
    }
}
