//! A bridge over an in-memory pipe, with a scripted server on one side and HTTP exchanges on the other, on paused time.

mod answers;
mod batches;
mod ending;
mod handshake;
mod harness;
mod isolation;
mod limits;
mod refusals;
mod resumption;
mod server_messages;
