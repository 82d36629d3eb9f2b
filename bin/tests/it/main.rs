//! End-to-end tests: the broker as a process, real children, a fake Forgejo, over real HTTP.
//!
//! Tests that need Node and Python are ignored; `cargo xtask interop` installs both and runs them.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod conversation;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod eras;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod mcp_responses;
#[cfg(test)]
mod missing_program;
#[cfg(test)]
mod observability;
#[cfg(test)]
mod randomized;
#[cfg(test)]
mod session_contract;
#[cfg(test)]
mod sessionless;
#[cfg(test)]
mod shared_server;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod two_brokers;
#[cfg(test)]
mod upgrade;
