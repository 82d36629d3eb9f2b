//! Routing: which path belongs to which handler.
//!
//! If `public_url` has a path prefix, every path is served under the prefix, and also without it,
//! for a reverse proxy that strips the prefix and for probes that bypass the proxy. The well-known
//! documents of a URL with a path live at the root and append that path (RFC 8414 section 3.1, RFC
//! 9728 section 3.1); some clients request them under the prefix.

use http::Uri;

/// The target of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The MCP endpoint.
    Mcp,
    /// The authorization server and its metadata.
    Authority,
    Health,
    Ready,
    Metrics,
    /// The page that describes the broker.
    Index,
    Unknown,
}

impl Route {
    /// The route of `path`, and the path without the prefix.
    pub(crate) fn of<'a>(path: &'a str, prefix: &str) -> (Self, &'a str) {
        let inner = match path.strip_prefix(prefix) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        };
        // A client may add a slash to the URL that its user types, and stops at a 404.
        let inner = if inner == "/mcp/" { "/mcp" } else { inner };
        let route = match inner {
            "/mcp" => Self::Mcp,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/" => Self::Index,
            _ if inner.starts_with("/oauth/") || inner.starts_with("/.well-known/") => Self::Authority,
            _ => Self::Unknown,
        };
        (route, inner)
    }

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Authority => "oauth",
            Self::Health => "healthz",
            Self::Ready => "readyz",
            Self::Metrics => "metrics",
            Self::Index => "index",
            Self::Unknown => "unknown",
        }
    }

    /// True for the paths at which any `Host` is allowed: load balancers address each broker by its
    /// IP address.
    pub(crate) fn allows_any_host(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }

    /// True for the paths that monitoring systems poll.
    pub(crate) fn is_monitoring(self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics)
    }
}

/// The URI with another path and the same query.
pub(crate) fn with_path(uri: &Uri, path: &str) -> Uri {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // Always valid: part of a valid path, beginning with a slash.
    Uri::try_from(target).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_routes() {
        for (path, route) in [
            ("/mcp", Route::Mcp),
            ("/oauth/token", Route::Authority),
            ("/.well-known/oauth-protected-resource/mcp", Route::Authority),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
            ("/", Route::Index),
            ("/mcp//", Route::Unknown),
            ("/MCP", Route::Unknown),
            ("//mcp", Route::Unknown),
            ("/metrics", Route::Metrics),
            ("/metrics/", Route::Unknown),
            ("/oauth", Route::Unknown),
        ] {
            assert_eq!(Route::of(path, ""), (route, path));
        }
    }

    #[test]
    fn prefix_is_stripped_only_at_a_segment_boundary() {
        for (path, route, inner) in [
            ("/a/b/mcp", Route::Mcp, "/mcp"),
            ("/a/b/mcp/", Route::Mcp, "/mcp"),
            ("/mcp/", Route::Mcp, "/mcp"),
            ("/mcp", Route::Mcp, "/mcp"),
            ("/a/b", Route::Index, "/"),
            ("/a/b/", Route::Index, "/"),
            ("/a/bmcp", Route::Unknown, "/a/bmcp"),
            ("/a/b/oauth/token", Route::Authority, "/oauth/token"),
            (
                "/.well-known/oauth-authorization-server/a/b",
                Route::Authority,
                "/.well-known/oauth-authorization-server/a/b",
            ),
            (
                "/a/b/.well-known/openid-configuration",
                Route::Authority,
                "/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(Route::of(path, "/a/b"), (route, inner), "{path}");
        }
    }

    #[test]
    fn query_is_kept() {
        let uri = "https://h/a/oauth/callback?code=1&x=%2F".parse().unwrap();
        assert_eq!(with_path(&uri, "/oauth/callback"), "/oauth/callback?code=1&x=%2F");
        assert_eq!(with_path(&"/a/mcp".parse().unwrap(), "/mcp"), "/mcp");
    }
}
