//! One name, one type: no more than two public or crate-wide types of the workspace share a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::Tree;

/// The one name that every crate has; the path of the crate makes it obvious.
const COMMON: &str = "Config";

/// The most types that may share a name.
const MAX_TYPES: usize = 2;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut types: BTreeMap<&str, BTreeSet<&Path>> = BTreeMap::new();
    for (path, text) in tree.with_ending("rs").filter(|(path, _)| is_product(path)) {
        let production = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for name in production.lines().filter_map(type_name) {
            types.entry(name).or_default().insert(path);
        }
    }
    types
        .into_iter()
        .filter(|(name, files)| files.len() > MAX_TYPES && *name != COMMON)
        .map(|(name, files)| format!("{} types are called {name}: {files:?}", files.len()))
        .collect()
}

fn is_product(path: &Path) -> bool {
    (path.starts_with("crates") || path.starts_with("bin")) && path.components().any(|part| part.as_os_str() == "src")
}

/// The name of a type that a line defines at the top of a module for more than the module itself.
fn type_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let (keyword, rest) = rest.trim_start().split_once(' ')?;
    if !["struct", "enum", "trait", "type"].contains(&keyword) {
        return None;
    }
    rest.split(|character: char| !character.is_alphanumeric() && character != '_')
        .next()
}

#[cfg(test)]
mod tests {
    use super::type_name;

    #[test]
    fn names_of_public_and_crate_wide_types_are_found() {
        assert_eq!(type_name("pub struct Session {"), Some("Session"));
        assert_eq!(type_name("pub(crate) enum Phase<T> {"), Some("Phase"));
        assert_eq!(type_name("pub(in crate::server) trait Clock: Send {"), Some("Clock"));
        assert_eq!(type_name("struct Private;"), None);
        assert_eq!(type_name("pub fn type_name() {"), None);
    }
}
