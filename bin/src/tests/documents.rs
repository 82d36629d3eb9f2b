//! Documents that are generated from code or name parts of it. The tests compare them with `docs/`,
//! and write the generated ones if `UPDATE_DOCS` is set:
//! `UPDATE_DOCS=1 cargo test -p forgejo-mcp-broker --lib documents`, or `cargo xtask docs`.

mod configuration;
mod metrics;
mod security;

use std::{fs, path::Path};

#[test]
fn configuration_reference_is_current() {
    compare("configuration.md", &configuration::page());
}

#[test]
fn metrics_reference_is_current() {
    compare("metrics.md", &metrics::page());
}

#[test]
fn security_page_names_a_test_for_each_clause_and_each_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut existing = security::existing_tests(&root.join("crates"));
    existing.extend(security::existing_tests(&root.join("bin")));
    let rows = security::named_tests(&page);
    assert!(rows.len() > 50, "the tables of clauses were not found");
    for (row, names) in rows {
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(
                existing.contains(name),
                "docs/security.md names a test that does not exist: {name}"
            );
        }
    }
}

fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == page,
        "docs/{name} is out of date: `cargo xtask docs` updates it"
    );
}
