//! The rules of the repository that no compiler checks. `cargo xtask tidy` prints what breaks them; a test runs the same.
//!
//! Left out: what rustc, clippy, rustfmt and cargo-deny already check.

mod dependencies;
mod documents;
mod sources;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::shell;

/// What the rules look at.
pub(crate) struct Tree {
    /// The text of every file that git tracks or would track, by its path from the root.
    files: BTreeMap<PathBuf, String>,
    /// What each package of the workspace depends on.
    packages: Vec<Package>,
}

/// A package of the workspace.
pub(crate) struct Package {
    name: String,
    /// Names of the packages that it names as dependencies of any kind.
    dependencies: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    let broken = broken_rules()?;
    if broken.is_empty() {
        println!("xtask: the tree is tidy");
        return Ok(());
    }
    for line in &broken {
        println!("{line}");
    }
    bail!("{} rules are broken", broken.len());
}

/// Each breach of a rule, as a line.
fn broken_rules() -> Result<Vec<String>> {
    let tree = Tree::read()?;
    let mut broken = dependencies::check(&tree);
    broken.extend(documents::check(&tree));
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
        .context("git could not be started")?;
    if !listing.status.success() {
        bail!("git ls-files failed");
    }
    let names = String::from_utf8(listing.stdout).context("a file name is not UTF-8")?;
    let mut files = BTreeMap::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        // A picture is no text, and a file that was removed but not yet committed is not there.
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
