//! Development tasks, run as `cargo xtask TASK`: everything that cargo cannot do by itself.
//!
//! The package depends on no other package of the workspace. It compiles within seconds, and a
//! change to a crate does not rebuild it.
#![expect(clippy::print_stdout, reason = "a task reports to the person who started it")]

mod bench;
mod install;
mod programs;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks of forgejo-mcp-broker")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check: format, lints, repository rules, licenses, documentation, all tests,
    /// official clients, the conformance suite, the demo
    Test {
        /// Run the randomized tests (chaos, kills, schedules) in their long form
        #[arg(long)]
        full: bool,
    },
    /// Install the pinned foreign clients and servers that the tests drive, and a browser
    Install,
    /// Run the official SDK clients and a third-party MCP server against the broker
    Interop,
    /// Run the official conformance suite against the broker
    Conformance,
    /// Start a fake Forgejo and the broker on loopback, to try clients on
    Demo {
        /// Play a client through the whole flow, print each step, and exit
        #[arg(long)]
        once: bool,
        /// The port that the broker listens on: 8080, or a free one with --once
        #[arg(long)]
        port: Option<u16>,
    },
    /// Benchmark a part against its bare baseline
    Bench {
        /// The part to measure
        #[arg(value_enum)]
        part: bench::Part,
    },
    /// Check the repository rules that no compiler checks
    Tidy,
    /// Write the documents that are generated from code
    Docs,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test { full } => test::run(full),
        Task::Install => install::interop(),
        Task::Interop => test::run_interop(""),
        Task::Conformance => test::run_interop("server_suite::"),
        Task::Demo { once, port } => demo(once, port),
        Task::Bench { part } => bench::run(part),
        Task::Tidy => tidy::run(),
        Task::Docs => docs(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(once: bool, port: Option<u16>) -> Result<()> {
    println!("xtask: building the broker and its test doubles");
    programs::build()?;
    let mut demo = programs::demo()?;
    if once {
        demo.arg("--once");
    }
    if let Some(port) = port {
        demo.arg("--port").arg(port.to_string());
    }
    shell::run(&mut demo)
}

/// Runs the tests that compare generated documents with the code, in the mode that writes them.
fn docs() -> Result<()> {
    let mut tests = shell::cargo();
    tests.args([
        "test",
        "--workspace",
        "--all-features",
        "--locked",
        "--lib",
        "documents::",
    ]);
    shell::run(tests.env("UPDATE_DOCS", "1"))
}
