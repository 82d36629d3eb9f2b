//! Tests of the whole crate: the server driven in memory on a SQLite file, and the Forgejo client
//! against a small server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access_tokens;
mod accounts;
mod approvals;
mod browser;
mod cimd;
mod clauses;
mod client_management;
mod connections;
mod error_pages;
mod fetcher;
mod flow;
mod forgejo;
mod https;
mod processes;
mod query_plans;
mod rate_limits;
mod recorded_events;
mod registration;
mod scripted_upstream;
mod store;
mod tokens;
mod world;
