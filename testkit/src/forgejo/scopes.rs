//! The API access that a granted scope gives.
//!
//! Two oddities of Forgejo are kept. It drops unknown scopes silently. And a set without any API
//! scope gives access to **everything**.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// No API scope was granted, so all access is.
    Everything,
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
    pub(super) fn of_grant(scope: &str) -> Self {
        let known = scope.split(' ').filter(|word| is_api_scope(word));
        let known: Vec<String> = known.map(str::to_owned).collect();
        if known.is_empty() {
            Self::Everything
        } else {
            Self::Only(known)
        }
    }

    /// Whether all of `required` (such as `read:user`) are allowed. `write` implies `read`.
    pub(super) fn allows(&self, required: &[&str]) -> bool {
        let Self::Only(granted) = self else {
            return true;
        };
        let mut required = required.iter();
        required.all(|required| granted.iter().any(|granted| covers(granted, required)))
    }
}

fn is_api_scope(word: &str) -> bool {
    matches!(word, "all" | "public-only")
        || matches!(word.split_once(':'), Some(("read" | "write", category)) if CATEGORIES.contains(&category))
}

fn covers(granted: &str, required: &str) -> bool {
    let category = required.strip_prefix("read:");
    granted == "all" || granted == required || (category.is_some() && granted.strip_prefix("write:") == category)
}

#[cfg(test)]
mod tests {
    use super::Access;

    #[test]
    fn set_without_api_scope_allows_everything() {
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
    fn write_implies_read_but_not_the_reverse() {
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
