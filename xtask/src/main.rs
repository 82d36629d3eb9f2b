//! Development tasks, as `cargo xtask TASK`: what cargo cannot do by itself.
#![expect(clippy::print_stdout, reason = "a task talks to whoever started it")]

mod bench;
mod conformance;
mod demo;
mod docs;
mod interop;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks of forgejo-mcp-broker")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that has to hold: format, lints, rules, licences, all tests, official clients, the conformance
    /// suite, the demo
    Test,
    /// The official SDK clients and a foreign MCP server against the broker
    Interop,
    /// The official conformance suite against the broker
    Conformance,
    /// A fake Forgejo and the broker on loopback, to try clients on
    Demo {
        /// Play a client through the whole flow, print each step, and exit
        #[arg(long)]
        once: bool,
        /// The port that the broker listens on: 8080, or a free one with --once
        #[arg(long)]
        port: Option<u16>,
    },
    /// What a part costs, next to what it cannot do without
    Bench {
        /// The part
        #[arg(value_enum)]
        part: bench::Part,
    },
    /// The rules of the repository that no compiler checks
    Tidy,
    /// Print generated documents anew
    Docs,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test => test::run(),
        Task::Interop => interop::run().map(|_| ()),
        Task::Conformance => conformance::run(),
        Task::Demo { once, port } => demo::run(once, port),
        Task::Bench { part } => bench::run(part),
        Task::Tidy => tidy::run(),
        Task::Docs => docs::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
