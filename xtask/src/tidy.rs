//! The repository rules that no compiler checks. `cargo xtask tidy` prints each breach; a test runs
//! the same checks.
//!
//! Left out: everything that rustc, clippy, rustfmt and cargo-deny check.

mod dependencies;
mod documents;
mod modules;
mod names;
mod prose;
mod sources;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::shell;

/// The input of the rules.
pub(crate) struct Tree {
    /// The text of each file that git tracks or does not ignore, by its path from the root.
    files: BTreeMap<PathBuf, String>,
    /// The packages of the workspace.
    packages: Vec<Package>,
}

/// A package of the workspace.
pub(crate) struct Package {
    name: String,
    /// The names of its dependencies of any kind.
    dependencies: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    let broken = broken_rules()?;
    if broken.is_empty() {
        println!("xtask: tidy");
        return Ok(());
    }
    for line in &broken {
        println!("{line}");
    }
    bail!("{} breaches of the repository rules", broken.len());
}

/// Each breach of a rule, as a line.
fn broken_rules() -> Result<Vec<String>> {
    let tree = Tree::read()?;
    let mut broken = dependencies::check(&tree);
    broken.extend(documents::check(&tree));
    broken.extend(modules::check(&tree));
    broken.extend(names::check(&tree));
    broken.extend(prose::check(&tree));
    broken.extend(sources::check(&tree));
    Ok(broken)
}

impl Tree {
    fn read() -> Result<Self> {
        let root = shell::root();
        Ok(Self {
            files: files(&root)?,
            packages: packages(&root)?,
        })
    }

    fn with_ending(&self, ending: &str) -> impl Iterator<Item = (&Path, &str)> {
        let matches = move |path: &Path| path.extension().is_some_and(|found| found == ending);
        self.files
            .iter()
            .map(|(path, text)| (path.as_path(), text.as_str()))
            .filter(move |(path, _)| matches(path))
    }
}

fn files(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    if !listing.status.success() {
        bail!("git ls-files failed");
    }
    let names = String::from_utf8(listing.stdout).context("a file name is not UTF-8")?;
    let mut files = BTreeMap::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        // Pictures are not text, and git lists a removed file until the removal is committed.
        if let Ok(text) = fs::read_to_string(root.join(name)) {
            files.insert(PathBuf::from(name), text);
        }
    }
    Ok(files)
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()?;
    let package = |package: &cargo_metadata::Package| Package {
        name: package.name.to_string(),
        dependencies: package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.clone())
            .collect(),
    };
    Ok(metadata.packages.iter().map(package).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        let broken = super::broken_rules().unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
