//! The broker as a program: command line, configuration, and the adapters that wire the five crates
//! together.
//!
//! In reading order: `cli`, the commands; `config`, the operator's decisions; `serve`, which
//! builds, runs and drains the parts; `adapters`, which implement the ports of one crate by
//! another. No policy lives here.

mod adapters;
mod check;
pub mod cli;
mod config;
mod logging;
mod serve;
mod template;
#[cfg(test)]
mod tests;
pub mod version;
