//! The dependency rule: none of the five crates depends on another of the five.
//!
//! Each external dependency has a line in `docs/dependencies.md`, and each line a dependency.

use std::{collections::BTreeSet, path::Path};

use super::{Package, Tree};

/// The crates that must not depend on each other; `bin` connects them.
const FIVE: [&str; 5] = ["oauth", "supervisor", "bridge", "session", "broker"];

/// The document with a table row for each dependency, which begins with its name in backquotes.
const LIST: &str = "docs/dependencies.md";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut broken = rule(&tree.packages);
    let list = tree.files.get(Path::new(LIST)).map_or("", String::as_str);
    broken.extend(lines(&tree.packages, list));
    broken
}

fn rule(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for name in FIVE {
        let Some(package) = packages.iter().find(|package| package.name == name) else {
            broken.push(format!("there is no crate {name}, which the dependency rule names"));
            continue;
        };
        // A crate may depend on itself to turn its features on for its own tests.
        let others = package.dependencies.iter().filter(|other| other.as_str() != name);
        for other in others.filter(|other| FIVE.contains(&other.as_str())) {
            broken.push(format!("the dependency rule: {name} depends on {other}"));
        }
    }
    broken
}

fn lines(packages: &[Package], list: &str) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let used: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| package.dependencies.iter().map(String::as_str))
        .filter(|name| !ours.contains(name))
        .collect();
    let listed: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let missing = used
        .difference(&listed)
        .map(|name| format!("{LIST}: no line for {name}"));
    let stale = listed
        .difference(&used)
        .map(|name| format!("{LIST}: a line for {name}, which no package uses"));
    missing.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::{FIVE, Package, lines, rule};

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn a_dependency_between_two_of_the_five_breaks_the_rule() {
        let mut packages: Vec<Package> = FIVE.map(|name| package(name, &["tokio"])).into();
        packages.push(package("bin", &FIVE));
        assert_eq!(rule(&packages), Vec::<String>::new());
        packages[3].dependencies.push("bridge".to_owned());
        assert_eq!(rule(&packages), ["the dependency rule: session depends on bridge"]);
    }

    #[test]
    fn a_dependency_without_a_line_and_a_line_without_a_dependency_are_reported() {
        let packages = [package("a", &["b", "tokio", "serde"]), package("b", &[])];
        let list = "| `tokio` | tasks |\n| `rand` | chance |";
        assert_eq!(
            lines(&packages, list),
            [
                "docs/dependencies.md: no line for serde",
                "docs/dependencies.md: a line for rand, which no package uses"
            ]
        );
    }
}
