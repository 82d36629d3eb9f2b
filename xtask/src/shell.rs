//! Runs other programs in the root of the workspace, and counts the tests that they report.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail};

/// Counts of tests that a runner reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// A program that runs beside others. Its output is held back and printed in one piece. Dropping it
/// kills the program.
pub(crate) struct Background {
    name: String,
    child: Child,
    reader: Option<JoinHandle<io::Result<String>>>,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map_or_else(|| manifest.to_path_buf(), Path::to_path_buf)
}

/// The directory into which cargo builds the workspace.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// The cargo that started this task, without the variables that it sets for this package. Build
/// scripts that depend on them would otherwise run again whenever a person calls cargo directly.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// A program that runs in the root of the workspace.
pub(crate) fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Runs a program, and fails if the program fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = describe(command);
    println!("xtask: {name}");
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Runs cargo's test runner, prints its output, and counts its tests. A failed run has counts, too.
pub(crate) fn run_tests(command: &mut Command) -> (Tally, Result<()>) {
    let mut tally = Tally::default();
    let outcome = stream(command, |line| tally.count(line));
    (tally, outcome)
}

fn stream(command: &mut Command, mut each_line: impl FnMut(&str)) -> Result<()> {
    let name = describe(command);
    println!("xtask: {name}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdout = child.stdout.take().context("standard output was piped")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("{name} printed a line that is not UTF-8"))?;
        println!("{line}");
        each_line(&line);
    }
    std::io::stdout().flush()?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

impl Background {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let name = describe(&command);
        println!("xtask: {name}, in the background");
        // One pipe, so that the lines of both outputs stay in their order.
        let (mut output, writer) = io::pipe()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            output.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        });
        Ok(Self {
            name,
            child,
            reader: Some(reader),
        })
    }

    /// Waits for the end, prints the output, and counts the tests in it.
    pub(crate) fn finish(mut self) -> (Tally, Result<()>) {
        let mut tally = Tally::default();
        let outcome = self.wait(&mut tally);
        (tally, outcome)
    }

    fn wait(&mut self, tally: &mut Tally) -> Result<()> {
        let name = &self.name;
        let output = self.reader.take().and_then(|reader| reader.join().ok());
        let output = output.with_context(|| format!("the output of {name} is lost"))??;
        println!("xtask: {name}, which ran in the background\n{output}");
        output.lines().for_each(|line| tally.count(line));
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{name} failed ({status})");
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A program that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
    }
}

impl Tally {
    /// Adds the counts of a line, if it has some.
    fn count(&mut self, line: &str) {
        let counts = summary(line);
        self.passed += counts.passed;
        self.failed += counts.failed;
    }
}

/// Parses `test result: ok. 12 passed; 0 failed; ...`.
fn summary(line: &str) -> Tally {
    let Some(counts) = line.strip_prefix("test result: ") else {
        return Tally::default();
    };
    let count = |what: &str| {
        let before = counts.split_once(what).map_or("", |(before, _)| before).trim_end();
        before
            .rsplit([' ', ';'])
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    Tally {
        passed: count("passed"),
        failed: count("failed"),
    }
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Tally, summary};

    #[test]
    fn a_summary_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(summary(line), Tally { passed: 12, failed: 3 });
        assert_eq!(summary("running 4 tests"), Tally::default());
    }
}
