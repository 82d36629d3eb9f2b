//! Each file opens with `//!`, no file is long, and unsafe blocks are confined.

use std::path::Path;

use super::Tree;

/// The most lines of production code in a file.
const LIMIT: usize = 400;

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
        if lines > LIMIT {
            broken.push(format!(
                "{name}: {lines} lines of production code; the limit is {LIMIT}"
            ));
        }
        if has_unsafe(text) && !UNSAFE.iter().any(|allowed| path == Path::new(allowed)) {
            broken.push(format!("{name}: code marked unsafe"));
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

/// The lines before the test module, which is the last item of a file.
fn production_lines(text: &str) -> usize {
    let tests = text.find("#[cfg(test)]\nmod tests {");
    text[..tests.unwrap_or(text.len())].lines().count()
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
