//! The server's side of a bridge: one line of JSON-RPC after the other over a byte stream.
//!
//! `framing` cuts the stream into lines, `truncated_line` identifies the response in a line that is
//! too long, `outbox` queues lines for the server, and `task` runs all of it.

pub(crate) mod framing;
pub(crate) mod outbox;
pub(crate) mod task;
pub(crate) mod truncated_line;
