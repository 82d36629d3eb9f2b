//! The broker as a program: command line, configuration, and the adapters that wire the five crates together.
//!
//! In reading order: [`cli`] says what can be asked for, [`config`] what the operator decides, [`serve`] how the parts
//! are built, run and taken down, [`adapters`] how one crate's port is met by another crate,
//! [`upstream`] how a server that all sessions share is spoken to. No policy lives here.

pub mod adapters;
pub mod build;
mod check;
pub mod cli;
pub mod config;
#[cfg(test)]
mod documents;
pub mod logging;
pub mod serve;
pub mod template;
pub mod upstream;
