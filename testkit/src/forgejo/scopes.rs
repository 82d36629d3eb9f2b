//! What a granted scope lets a token do at the API.
//!
//! Two oddities of Forgejo are kept. A scope that it does not know is dropped without a word. And a set in which no
//! API scope is left is not an empty set: such a token may do **everything**.

/// The access that a token has at the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// No API scope was granted, so nothing is withheld.
    Everything,
    /// Only these.
    Only(Vec<String>),
}

const CATEGORIES: [&str; 9] = [
    "activitypub",
    "admin",
    "misc",
    "notification",
    "organization",
    "package",
    "issue",
    "repository",
    "user",
];

impl Access {
    /// Reads the scope of a grant, a list separated by spaces.
    pub(super) fn of_grant(scope: &str) -> Self {
        let known: Vec<String> = scope
            .split(' ')
            .filter(|word| is_api_scope(word))
            .map(str::to_owned)
            .collect();
        if known.is_empty() {
            Self::Everything
        } else {
            Self::Only(known)
        }
    }

    /// Whether all of `required` (such as `read:user`) are allowed. `write` implies `read`.
    pub(super) fn allows(&self, required: &[&str]) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(granted) => required
                .iter()
                .all(|needed| granted.iter().any(|has| covers(has, needed))),
        }
    }
}

fn is_api_scope(word: &str) -> bool {
    matches!(word, "all" | "public-only")
        || matches!(word.split_once(':'), Some(("read" | "write", category)) if CATEGORIES.contains(&category))
}

fn covers(granted: &str, needed: &str) -> bool {
    granted == "all"
        || granted == needed
        || needed
            .strip_prefix("read:")
            .is_some_and(|category| granted.strip_prefix("write:") == Some(category))
}

#[cfg(test)]
mod tests {
    use super::Access;

    #[test]
    fn a_set_without_an_api_scope_has_all_access() {
        for scope in ["", "openid profile email groups", "read:nothing mcp"] {
            assert_eq!(Access::of_grant(scope), Access::Everything, "{scope:?}");
        }
    }

    #[test]
    fn unknown_scopes_are_dropped_beside_known_ones() {
        let access = Access::of_grant("openid read:user nonsense");
        assert!(access.allows(&["read:user"]));
        assert!(!access.allows(&["read:repository"]));
    }

    #[test]
    fn write_implies_read_but_not_the_other_way_round() {
        assert!(Access::of_grant("write:user").allows(&["read:user", "write:user"]));
        assert!(!Access::of_grant("read:user").allows(&["write:user"]));
    }

    #[test]
    fn every_required_scope_is_needed() {
        assert!(!Access::of_grant("read:user").allows(&["read:user", "read:organization"]));
        assert!(Access::of_grant("all").allows(&["read:user", "write:admin"]));
        assert!(!Access::of_grant("public-only").allows(&["read:user"]));
    }
}
