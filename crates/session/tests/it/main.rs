//! The registry as an embedder sees it, on paused time and with backends that script and record.

mod caps;
mod durable_model;
mod endings;
mod examples;
mod fakes;
mod model;
mod opening;
mod points;
mod renewal;
mod revival;
mod rotation;
mod routing;
mod sqlite;
mod watched;
mod world;
