//! Each file opens with `//!`, a long file gives its reason, and unsafe code is confined.

use std::path::Path;

use super::Tree;

/// The most lines of production code in a file without a reason.
const LIMIT: usize = 400;

/// The files above the limit, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// The files that call the kernel without a safe wrapper.
const UNSAFE: &[&str] = &["crates/supervisor/src/clone_exec.rs"];

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.with_ending("rs") {
        let name = path.display();
        if !opens_with_docs(text) {
            broken.push(format!("{name}: does not open with //!"));
        }
        let lines = if is_test(path) { 0 } else { production_lines(text) };
        if lines > LIMIT && !LONG.iter().any(|(long, _)| path == Path::new(long)) {
            broken.push(format!(
                "{name}: {lines} lines of production code and no reason in xtask/src/tidy/sources.rs"
            ));
        }
        if has_unsafe(text) && !UNSAFE.iter().any(|allowed| path == Path::new(allowed)) {
            broken.push(format!("{name}: unsafe code"));
        }
    }
    for (long, _) in LONG {
        if tree
            .files
            .get(Path::new(long))
            .is_none_or(|text| production_lines(text) <= LIMIT)
        {
            broken.push(format!("{long}: listed as long but is not"));
        }
    }
    broken
}

fn opens_with_docs(text: &str) -> bool {
    text.starts_with("//!")
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

fn production_lines(text: &str) -> usize {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count()
}

fn has_unsafe(text: &str) -> bool {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let marker = concat!("unsafe", " ");
    code.into_iter()
        .any(|line| line.contains(marker) && (line.contains('{') || line.contains("impl") || line.contains("fn")))
}

#[cfg(test)]
mod tests {
    use super::{has_unsafe, opens_with_docs, production_lines};

    #[test]
    fn rules_see_what_they_look_for() {
        assert!(opens_with_docs("//! A module.\n"));
        assert!(!opens_with_docs("use std::fmt;\n"));
        assert_eq!(production_lines("//! A.\nfn a() {}\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert!(has_unsafe(concat!("let x = uns", "afe { call() };")));
        assert!(!has_unsafe("// this is not unsafe { }"));
    }
}
