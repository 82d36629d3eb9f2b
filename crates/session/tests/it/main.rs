//! The registry through its public API, on paused time and with scripted backends.

mod conversations;
mod credential_renewal;
mod durability;
mod durable_session_model;
mod endings;
mod examples;
mod harness;
mod implicit_sessions;
mod last_initialize;
mod listening_streams;
mod memory_records;
mod observer;
mod opening;
mod quotas;
mod revival;
mod rotation;
mod routing;
mod session_model;
mod sqlite_records;
