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

    /// Requires all of `required` (such as `read:user`). `write` implies `read`.
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
    fn unknown_scopes_are_dropped_write_implies_read_and_every_required_scope_is_needed() {
        for (granted, required, allowed) in [
            ("openid read:user nonsense", &["read:user"][..], true),
            ("openid read:user nonsense", &["read:repository"], false),
            ("write:user", &["read:user", "write:user"], true),
            ("read:user", &["write:user"], false),
            ("read:user", &["read:user", "read:organization"], false),
            ("all", &["read:user", "write:admin"], true),
            ("public-only", &["read:user"], false),
        ] {
            assert_eq!(
                Access::of_grant(granted).allows(required),
                allowed,
                "{granted}: {required:?}"
            );
        }
    }
}
