//! The tests that `docs/security.md` names for the clauses of the specifications.

use std::{collections::BTreeSet, fs, path::Path};

/// The heading of the part with the tables of clauses.
const CLAUSES: &str = "\n## Clauses\n";

/// The names in the last column of each row of the tables of clauses, with their row.
pub(super) fn named_tests(page: &str) -> Vec<(&str, Vec<&str>)> {
    let (_, part) = page.split_once(CLAUSES).unwrap();
    let part = part.split("\n## ").next().unwrap();
    let rows = part
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| clause |"));
    rows.map(|row| {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        (row, tests.split('`').skip(1).step_by(2).collect())
    })
    .collect()
}

/// The names of all tests in the Rust files below a directory.
pub(super) fn existing_tests(directory: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(existing_tests(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_of(&fs::read_to_string(&path).unwrap()));
        }
    }
    names
}

fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let (true, Some((_, rest))) = (is_test, line.split_once("fn ")) {
            names.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}
