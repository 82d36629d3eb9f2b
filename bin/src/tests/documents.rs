//! Documents that are generated from code. The tests compare them with `docs/`, and write them if
//! `UPDATE_DOCS` is set: `UPDATE_DOCS=1 cargo test -p forgejo-mcp-broker --lib documents`, or
//! `cargo xtask docs`.

mod configuration;
mod metrics;

use std::{fs, path::Path};

#[test]
fn configuration_reference_is_current() {
    compare("configuration.md", &configuration::page());
}

#[test]
fn metrics_reference_is_current() {
    compare("metrics.md", &metrics::page());
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
