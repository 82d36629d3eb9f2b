//! A bridge between HTTP exchanges and a scripted server on an in-memory pipe, on paused time.

mod batches;
mod end_of_stream;
mod handshake;
mod harness;
mod http_link;
mod limits;
mod modern;
mod modern_link;
mod rejections;
mod requests;
mod response_matching;
mod resumption;
mod server_messages;
