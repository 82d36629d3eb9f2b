//! What can be set about a bridge.
//!
//! Every limit of the crate is here, with the answer that is given where it is reached. The library's defaults suit one
//! `forgejo-mcp` child; nothing here is read from a file or the environment.

use std::time::Duration;

/// The limits and times of one bridge.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest line, in bytes, that the server may write. A longer one is skipped to its end.
    pub max_line: usize,
    /// How long a request may stay without any message before its answer becomes an event stream.
    pub json_patience: Duration,
    /// How long an event stream may be silent before a comment is sent on it.
    pub keep_alive: Duration,
    /// How long a client should wait before it comes back to a stream that was cut, as it is told at the beginning of each.
    pub retry: Duration,
    /// How long a stream without a reader is kept, once it waits for nothing but a client that comes back.
    pub replay_time: Duration,
    /// How long one side may take to answer a request of the other that has reached it.
    pub request_timeout: Duration,
    /// How long the answer to a request that its client has cancelled is still waited for.
    pub cancel_grace: Duration,
    /// How long a request of the server waits for a client to listen before the server gets an error.
    pub listener_timeout: Duration,
    /// How long the replay of a handshake may take, and the answer to `initialize` before it becomes a stream.
    pub handshake_timeout: Duration,
    /// How many requests of the client may be in flight; one more is refused with 429.
    pub max_in_flight: usize,
    /// How many GET streams may be open; one more ends the oldest.
    pub max_listeners: usize,
    /// How many requests of the server may be open; one more is answered with an error.
    pub max_asks: usize,
    /// What may wait for the server to read; a request that does not fit gets an error.
    pub outgoing: Limits,
    /// What may wait for clients to read: messages of one stream, bytes of all streams together. Beyond it a stream loses
    /// its oldest notifications. Answers have room of their own.
    pub backlog: Limits,
    /// How many bytes of all messages may wait for clients to read, or be on their way to them, when one more answer comes. An answer
    /// beyond it is replaced by an error. If there are none an answer may have any size.
    pub max_unread: usize,
    /// What is kept of all streams together for clients that come back, answers that nobody has read yet included. Beyond it
    /// the oldest is forgotten, and who comes back for an answer that is forgotten gets an error in its place.
    pub replay: Limits,
    /// How many resource subscriptions are recorded; one more is not renewed on the next server.
    pub max_subscriptions: usize,
}

/// How much a queue holds. A queue with nothing in it takes one message of any size.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of messages.
    pub messages: usize,
    /// Their bytes in all.
    pub bytes: usize,
}

impl Config {
    /// The same with times that can be added to any moment without overflow.
    pub(crate) fn bounded(mut self) -> Self {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let times = [
            &mut self.json_patience,
            &mut self.keep_alive,
            &mut self.retry,
            &mut self.replay_time,
            &mut self.request_timeout,
            &mut self.cancel_grace,
            &mut self.listener_timeout,
            &mut self.handshake_timeout,
        ];
        for time in times {
            *time = CENTURY.min(*time);
        }
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_line: 16 * MIB,
            json_patience: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            retry: Duration::from_secs(1),
            replay_time: Duration::from_secs(300),
            request_timeout: Duration::from_secs(600),
            cancel_grace: Duration::from_secs(5),
            listener_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(30),
            max_in_flight: 1024,
            max_listeners: 16,
            max_asks: 256,
            outgoing: Limits {
                messages: 2048,
                bytes: 32 * MIB,
            },
            backlog: Limits {
                messages: 256,
                bytes: 16 * MIB,
            },
            replay: Limits {
                messages: 2048,
                bytes: 4 * MIB,
            },
            max_unread: 32 * MIB,
            max_subscriptions: 1024,
        }
    }
}
