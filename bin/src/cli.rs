//! The command line: commands and their exit statuses.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use supervisor::MissingLayer;

use crate::{
    check,
    config::{self, Config, ConfigErrors, Sources, crate_configs},
    serve, version,
};

/// The exit status for a bad command line or configuration (`EX_USAGE` of sysexits).
const EX_USAGE: u8 = 64;

/// The exit status for a program of children that is missing, or a shared MCP server that does
/// not respond (`EX_UNAVAILABLE` of sysexits).
const EX_UNAVAILABLE: u8 = 69;

/// Gives every user of a Forgejo instance their own authenticated MCP server at one URL.
#[derive(Debug, Parser)]
#[command(name = "forgejo-mcp-broker", version = version::VERSION, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT (also without a command)
    Serve(Source),
    /// Check the configuration, the isolation layers of this machine, and the program of children
    /// or the shared MCP server, and exit
    Check(Source),
}

#[derive(Args, Debug)]
struct Source {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command line.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command.unwrap_or(Command::Serve(cli.source)) {
        Command::Serve(source) => match load(source) {
            Ok(config) => start(&config),
            Err(errors) => refuse(&errors),
        },
        Command::Check(source) => match config::check(&Sources::process(source.config)) {
            Ok((config, missing)) => report(&config, &missing),
            Err(errors) => refuse(&errors),
        },
    }
}

fn load(source: Source) -> Result<Config, ConfigErrors> {
    config::load(&Sources::process(source.config))
}

fn start(config: &Config) -> ExitCode {
    match serve::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = format!("{error:#}"), "broker stopped by an error");
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of `check` is for the terminal, not for the log"
)]
fn report(config: &Config, missing: &[MissingLayer]) -> ExitCode {
    if let Some(endpoint) = crate_configs::endpoint(config) {
        let url = endpoint.url.clone();
        if let Err(error) = check::upstream(endpoint) {
            eprintln!("The configuration is valid, but there is no MCP server at {url}: {error:#}.");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    }
    if let Err(reason) = check::program(config) {
        eprintln!("The configuration is valid, but no session can open: {reason}.");
        return ExitCode::from(EX_UNAVAILABLE);
    }
    for missing in missing {
        println!("Isolation layer not available on this machine: {missing}.");
    }
    println!(
        "The configuration is valid: {} will serve {}.",
        config.server.public_url, config.forgejo.url
    );
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "logging is not set up without a configuration")]
fn refuse(errors: &ConfigErrors) -> ExitCode {
    eprintln!("{errors}");
    ExitCode::from(EX_USAGE)
}

fn usage(error: &clap::Error) -> ExitCode {
    // If neither stream can be written, the exit status remains.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(EX_USAGE)
    } else {
        ExitCode::SUCCESS
    }
}
