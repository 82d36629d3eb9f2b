//! The registry as an embedder sees it, on paused time and with backends that script and record.

mod caps;
mod durable_model;
mod endings;
mod fakes;
mod model;
mod opening;
mod revival;
mod rotation;
mod routing;
mod world;
