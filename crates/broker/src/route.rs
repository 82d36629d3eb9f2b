//! Which path leads where.
//!
//! A `public_url` with a path prefix puts every path under the prefix; the paths without it work too, for a reverse proxy
//! that takes the prefix away and for probes that come around it. Well-known documents of a URL with a path live at the
//! root with that path behind them (RFC 8414 section 3.1, RFC 9728 section 3.1); some clients ask under the prefix.

use http::Uri;

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The MCP endpoint.
    Mcp,
    /// The authorization server and its metadata.
    Authority,
    /// Whether the broker is healthy.
    Health,
    /// Whether it takes requests.
    Ready,
    /// What has been counted.
    Metrics,
    /// The page that says what this is.
    Index,
    /// Nowhere.
    Unknown,
}

impl Route {
    /// Where `path` leads, with the prefix taken off it.
    pub(crate) fn of<'a>(path: &'a str, prefix: &str) -> (Self, &'a str) {
        let inner = match path.strip_prefix(prefix) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        };
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

    /// Its name where exchanges are counted.
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
}

/// The target of a request with another path, and the same query.
pub(crate) fn with_path(uri: &Uri, path: &str) -> Uri {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // Part of a path that was valid, and begins with a slash.
    Uri::try_from(target).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_they_say() {
        for (path, route) in [
            ("/mcp", Route::Mcp),
            ("/oauth/token", Route::Authority),
            ("/.well-known/oauth-protected-resource/mcp", Route::Authority),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
            ("/", Route::Index),
            ("/mcp/", Route::Unknown),
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
    fn a_prefix_is_taken_off_at_a_whole_segment() {
        for (path, route, inner) in [
            ("/a/b/mcp", Route::Mcp, "/mcp"),
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
    fn the_query_stays_with_its_path() {
        let uri = "https://h/a/oauth/callback?code=1&x=%2F".parse().unwrap();
        assert_eq!(with_path(&uri, "/oauth/callback"), "/oauth/callback?code=1&x=%2F");
        assert_eq!(with_path(&"/a/mcp".parse().unwrap(), "/mcp"), "/mcp");
    }
}
