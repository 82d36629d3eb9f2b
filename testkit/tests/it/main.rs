//! The doubles, driven over real HTTP.

mod api;
mod browser;
#[cfg(test)]
mod child;
mod consent;
mod faults;
mod refresh;
mod support;
mod token_endpoint;
