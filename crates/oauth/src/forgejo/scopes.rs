//! Forgejo's scopes, and their meaning in words.
//!
//! Forgejo silently drops a scope that it does not know, and **a token whose scopes name no part of
//! the API may do everything**. So `openid profile`, or a list of misspelled scopes, would give
//! each MCP session the whole account. [`Scopes`] exist only for a list in which every scope is
//! known and at least one names a part of the API.

use std::fmt;

/// A list of scopes that limits a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<String>);

/// An error in a list of scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No scope names a part of the API.
    #[error(
        "no scope names a part of the API: Forgejo would give every token access to everything. \
         Name what is needed, e.g. \"read:user\", \"write:repository\""
    )]
    NoApiScope,
    /// Forgejo does not know the scope.
    #[error("{0:?} is not a scope of Forgejo, which would silently drop it")]
    Unknown(String),
    /// The broker could not ask for the user of a token.
    #[error("\"read:user\" is missing: the broker needs it to learn who has signed in")]
    NoUserScope,
}

/// The parts of the API, and their names for a user.
const AREAS: &[(&str, &str)] = &[
    ("activitypub", "federation data"),
    ("admin", "the whole instance, as an administrator"),
    ("misc", "miscellaneous data of the instance"),
    ("notification", "your notifications"),
    ("organization", "your organizations and teams"),
    ("package", "packages"),
    ("issue", "issues, pull requests, comments and labels"),
    ("repository", "repositories, their files, branches and releases"),
    ("user", "your account and profile"),
];

/// Scopes that limit or inform but name no part of the API.
const OTHERS: &[&str] = &["openid", "profile", "email", "groups", "public-only"];

impl Scopes {
    /// Checks a list of scopes.
    ///
    /// # Errors
    ///
    /// Any [`ScopeError`].
    pub fn new<S: Into<String>>(scopes: impl IntoIterator<Item = S>) -> Result<Self, ScopeError> {
        let mut list: Vec<String> = Vec::new();
        for scope in scopes {
            let scope = scope.into();
            if scope != "all" && area(&scope).is_none() && !OTHERS.contains(&scope.as_str()) {
                return Err(ScopeError::Unknown(scope));
            }
            if !list.contains(&scope) {
                list.push(scope);
            }
        }
        let scopes = Self(list);
        if !scopes.0.iter().any(|scope| scope == "all" || area(scope).is_some()) {
            return Err(ScopeError::NoApiScope);
        }
        if !scopes.allow_reading("user") {
            return Err(ScopeError::NoUserScope);
        }
        Ok(scopes)
    }

    /// Compares them with the scope of a grant at Forgejo: `true` if both allow the same, no less
    /// and no more.
    pub(super) fn same_as(&self, granted: &str) -> bool {
        reach(self.0.iter().map(String::as_str)) == reach(granted.split_ascii_whitespace())
    }

    /// Reports whether they allow reading the members of an organization.
    #[must_use]
    pub fn read_organizations(&self) -> bool {
        self.allow_reading("organization")
    }

    /// The permissions in words, one for each scope, in the order of the list.
    pub(super) fn in_words(&self) -> Vec<String> {
        in_words(self.0.iter().map(String::as_str))
    }

    fn allow_reading(&self, name: &str) -> bool {
        self.0.iter().any(|scope| reaches(scope, name))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// The permissions of a grant at Forgejo, in words.
pub(super) fn granted_in_words(granted: &str) -> Vec<String> {
    let list = || granted.split_ascii_whitespace();
    if list().any(|scope| scope == "all" || area(scope).is_some()) {
        in_words(list())
    } else {
        // A token whose scopes name no part of the API may do everything.
        in_words(std::iter::once("all"))
    }
}

fn in_words<'a>(scopes: impl Iterator<Item = &'a str>) -> Vec<String> {
    scopes
        .filter_map(|scope| match scope {
            "all" => Some("do everything that you can do".to_owned()),
            "public-only" => Some("reach public repositories and organizations only".to_owned()),
            other => {
                let (_, words) = area(other)?;
                let verb = if other.starts_with("write:") {
                    "read and change"
                } else {
                    "read"
                };
                Some(format!("{verb} {words}"))
            }
        })
        .collect()
}

/// The permissions of a list of scopes: for each part of the API 0 for nothing, 1 for reading, 2
/// for changing too; and a restriction to public data. Writing includes reading, and no part of the
/// API at all means all of it.
fn reach<'a>(scopes: impl Iterator<Item = &'a str>) -> ([u8; AREAS.len()], bool) {
    let (mut levels, mut public_only) = ([0; AREAS.len()], false);
    for scope in scopes {
        public_only |= scope == "public-only";
        for ((name, _), level) in AREAS.iter().zip(&mut levels) {
            if reaches(scope, name) {
                let reads = scope.starts_with("read:");
                *level = (*level).max(if reads { 1 } else { 2 });
            }
        }
    }
    if levels == [0; AREAS.len()] {
        levels = [2; AREAS.len()];
    }
    (levels, public_only)
}

fn reaches(scope: &str, name: &str) -> bool {
    scope == "all" || area(scope).is_some_and(|(known, _)| *known == name)
}

/// The part of the API that a scope names, and its name for a user.
fn area(scope: &str) -> Option<&'static (&'static str, &'static str)> {
    let name = scope.strip_prefix("read:").or_else(|| scope.strip_prefix("write:"))?;
    AREAS.iter().find(|(known, _)| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_without_api_scope_is_refused() {
        for list in [
            &[][..],
            &["openid", "profile"],
            &["public-only"],
            &["openid", "email", "groups"],
        ] {
            let error = Scopes::new(list.iter().copied()).unwrap_err();
            assert_eq!(error, ScopeError::NoApiScope, "{list:?}");
            assert!(error.to_string().contains("access to everything"));
        }
    }

    #[test]
    fn unknown_scope_is_refused() {
        for scope in [
            "repo",
            "read:repo",
            "write:",
            "admin:user",
            "READ:USER",
            "read:user ",
            "",
        ] {
            assert_eq!(
                Scopes::new(["read:user", scope]),
                Err(ScopeError::Unknown(scope.to_owned()))
            );
        }
    }

    #[test]
    fn read_user_is_required() {
        assert_eq!(Scopes::new(["write:repository"]), Err(ScopeError::NoUserScope));
        for scope in ["read:user", "write:user", "all"] {
            assert!(Scopes::new([scope]).is_ok());
        }
    }

    #[test]
    fn granted_scope_is_compared_by_permissions() {
        let requested = Scopes::new(["read:user", "write:issue"]).unwrap();
        for granted in [
            "read:user write:issue",
            "write:issue read:user",
            "openid read:issue write:issue read:user unheard-of",
        ] {
            assert!(requested.same_as(granted), "{granted}");
        }
        for granted in [
            "",
            "openid",
            "all",
            "read:user",
            "read:user read:issue",
            "write:user write:issue",
            "read:user write:issue read:admin",
            "read:user write:issue public-only",
        ] {
            assert!(!requested.same_as(granted), "{granted}");
        }
        assert!(Scopes::new(["all"]).unwrap().same_as("openid"));
        assert_eq!(granted_in_words("openid"), ["do everything that you can do"]);
        assert_eq!(granted_in_words("read:issue openid").len(), 1);
    }

    #[test]
    fn scopes_are_described_in_words() {
        let scopes = Scopes::new(["openid", "read:user", "write:issue", "read:user", "public-only"]).unwrap();
        assert_eq!(scopes.to_string(), "openid read:user write:issue public-only");
        assert_eq!(
            scopes.in_words(),
            [
                "read your account and profile",
                "read and change issues, pull requests, comments and labels",
                "reach public repositories and organizations only",
            ]
        );
        assert!(!scopes.read_organizations());
        assert!(
            Scopes::new(["read:user", "write:organization"])
                .unwrap()
                .read_organizations()
        );
    }
}
