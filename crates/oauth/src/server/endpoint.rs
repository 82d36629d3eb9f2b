//! The endpoints: the paths that lead to them, and the methods that they take.
//!
//! Paths are matched with and without the prefix of `public_url`, since a proxy may strip it or
//! not.

/// An endpoint of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    ResourceMetadata,
    ServerMetadata,
    Register,
    Registration,
    Authorize,
    Callback,
    Connections,
    Token,
    Revoke,
}

impl Endpoint {
    /// The endpoint of a path, for a server whose URL has the path `prefix`.
    pub(super) fn of_path(path: &str, prefix: &str) -> Option<Self> {
        let local = path
            .strip_prefix(prefix)
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        if let Some(path) = local.strip_prefix("/.well-known/") {
            return Self::of_metadata_path(path, prefix);
        }
        match local.strip_prefix("/oauth/")? {
            "register" => Some(Self::Register),
            "authorize" => Some(Self::Authorize),
            "callback" => Some(Self::Callback),
            "connections" => Some(Self::Connections),
            "token" => Some(Self::Token),
            "revoke" => Some(Self::Revoke),
            path => {
                let id = path.strip_prefix("register/")?;
                (!id.is_empty() && !id.contains('/')).then_some(Self::Registration)
            }
        }
    }

    /// The endpoint of a well-known path, whose suffix names the issuer or the resource (RFC 8414
    /// section 3.1, RFC 9728 section 3.1). Some clients look for the metadata of the server under
    /// the path of the resource.
    fn of_metadata_path(path: &str, prefix: &str) -> Option<Self> {
        let (document, suffix) = path.split_at(path.find('/').unwrap_or(path.len()));
        if ![prefix, "", "/mcp"].contains(&suffix) && suffix.strip_suffix("/mcp") != Some(prefix) {
            return None;
        }
        match document {
            "oauth-protected-resource" => Some(Self::ResourceMetadata),
            "oauth-authorization-server" | "openid-configuration" => Some(Self::ServerMetadata),
            _ => None,
        }
    }

    /// Returns whether programs call it, also from pages of other origins. The others are for the
    /// user's browser.
    pub(super) fn is_cross_origin(self) -> bool {
        !matches!(self, Self::Authorize | Self::Callback | Self::Connections)
    }

    /// The methods that it takes, as the `Allow` header has them.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::ResourceMetadata | Self::ServerMetadata => "GET, HEAD",
            // HEAD would spend the state.
            Self::Callback => "GET",
            Self::Authorize | Self::Connections => "GET, HEAD, POST",
            Self::Registration => "GET, PUT, DELETE",
            Self::Register | Self::Token | Self::Revoke => "POST",
        }
    }
}
