//! End to end: the broker as a process, real children, a fake Forgejo, over real HTTP.
//!
//! Tests that need Node and Python are ignored here; `cargo xtask interop` installs what they need and runs them.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod observability;
#[cfg(test)]
mod session_contract;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod two_brokers;
#[cfg(test)]
mod upstream;
