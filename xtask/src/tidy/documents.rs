//! Relative links in documents name a file or folder of the tree.

use std::path::{Component, Path, PathBuf};

use super::Tree;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.with_ending("md") {
        for link in links(text) {
            let target = resolve(path, link);
            let exists = tree.files.keys().any(|file| file.starts_with(&target));
            if !exists {
                broken.push(format!("{}: broken link: {link}", path.display()));
            }
        }
    }
    broken
}

/// The targets of `[text](target)` that are relative paths, without their fragment.
fn links(text: &str) -> Vec<&str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets
        .filter(|target| !target.contains("://") && !target.starts_with(['#', '<']) && !target.starts_with("mailto:"))
        .map(|target| target.split_once('#').map_or(target, |(path, _)| path))
        .collect()
}

fn resolve(document: &Path, link: &str) -> PathBuf {
    let mut target = document.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                target.pop();
            }
            Component::Normal(name) => target.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::{links, resolve};
    use std::path::Path;

    #[test]
    fn only_relative_links_are_followed() {
        let text = "[a](../x.md#part) [b](https://example.org/) [c](#here) [d](docs/y.md)";
        assert_eq!(links(text), ["../x.md", "docs/y.md"]);
        assert_eq!(resolve(Path::new("docs/a.md"), "../x.md"), Path::new("x.md"));
    }
}
