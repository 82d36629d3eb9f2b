//! Tests of the whole crate: the server driven in memory on a SQLite file, and the Forgejo client against a small
//! server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod browser;
mod flow;
mod forgejo;
mod pages;
mod registration;
mod store;
mod tokens;
mod world;
