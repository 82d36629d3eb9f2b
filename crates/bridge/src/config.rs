//! The limits and timeouts of a conversation.
//!
//! Every limit of the crate is here, with the answer at the limit. The defaults suit one
//! `forgejo-mcp` child; this crate reads no file and no environment variable.

use std::{sync::Arc, time::Duration};

use crate::{
    dropped::DropCounts, era_counts::EraCounts, memory::MemoryBudget, modern::state::StateSealer,
    parked_calls::ParkedCalls,
};

/// The limits, timeouts and counters of one conversation.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest line that the server may write, in bytes. A longer one is skipped to its end.
    pub max_line: usize,
    /// The time without any message after which the answer to a request becomes an event stream.
    pub sse_upgrade_delay: Duration,
    /// The silence on an event stream after which a comment is sent.
    pub keep_alive: Duration,
    /// The reconnection time that each event stream tells its client.
    pub retry: Duration,
    /// The life of a stream without a reader once it only waits for its client to resume it.
    pub replay_time: Duration,
    /// The time that a server has to answer a request.
    pub request_timeout: Duration,
    /// The time that a client has to answer a request of a server that has reached it.
    pub question_timeout: Duration,
    /// The longest time for which a task is tracked, whatever its time to live.
    pub max_task_time: Duration,
    /// The time that the conversation waits for the response to a cancelled request.
    pub cancel_grace: Duration,
    /// The time that a server request waits for a client before the server gets an error.
    pub listener_timeout: Duration,
    /// The limit for replaying a handshake to a new server.
    pub handshake_timeout: Duration,
    /// The client requests in flight or waiting for a server; one more is rejected with 429.
    pub max_in_flight: usize,
    /// The open GET streams; one more ends the oldest.
    pub max_listeners: usize,
    /// The open server requests; one more is answered with an error.
    pub max_server_requests: usize,
    /// The lines that wait for one server; a request that does not fit gets an error. The requests
    /// that may have to be sent again have the same limit of bytes.
    pub outgoing: QueueLimits,
    /// The pending messages of one stream and the bytes of all streams together. At the limit a
    /// stream drops its oldest notifications. Responses have [`max_unflushed`](Self::max_unflushed)
    /// instead.
    pub backlog: QueueLimits,
    /// The bytes of all messages that wait for clients or are on their way to them when another
    /// response comes. A response beyond it is replaced by an error; a single response always fits.
    pub max_unflushed: usize,
    /// The messages kept for clients that resume, unread responses included. At the limit the
    /// oldest is evicted, and a client that resumes for an evicted response gets an error.
    pub replay_buffer: QueueLimits,
    /// The bytes of all messages of all conversations with clones of one `Config`.
    pub memory: MemoryBudget,
    /// The recorded resource subscriptions; one more does not carry over to the next server.
    pub max_subscriptions: usize,
    /// The time for which a call waits for its client to answer the questions of the server
    /// (clients of 2026-07-28).
    pub park_time: Duration,
    /// The calls of one conversation that wait so; one more ends the oldest.
    pub max_parked: usize,
    /// The calls that wait so in all conversations with clones of one `Config`; for one more, the
    /// oldest of its conversation ends, or its questions are answered with errors.
    pub parked_calls: ParkedCalls,
    /// As [`sse_upgrade_delay`](Self::sse_upgrade_delay), for clients of 2026-07-28, to which an
    /// event stream can tell no HTTP status.
    pub modern_sse_upgrade_delay: Duration,
    /// Seals what a client of 2026-07-28 carries between the questions of a server and their
    /// answers. Without one, no question is passed on to such clients.
    pub state_sealer: Option<Arc<dyn StateSealer>>,
    /// Requests that carry no session id belong to the session of the grant's last `initialize`.
    /// False rejects them, if they are of 2025-11-25 or earlier.
    pub sessionless_legacy: bool,
    /// Counts requests by their era. Conversations with clones of one `Config` share the counts.
    pub era_counts: EraCounts,
    /// Counts dropped messages. Conversations with clones of one `Config` share the counts.
    pub drop_counts: DropCounts,
}

/// The limits of a queue. An empty queue accepts one message of any size.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// The number of messages.
    pub messages: usize,
    /// Their bytes in all.
    pub bytes: usize,
}

impl Config {
    /// Caps the durations so that adding them to any instant cannot overflow.
    pub(crate) fn bounded(mut self) -> Self {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        for duration in [
            &mut self.sse_upgrade_delay,
            &mut self.keep_alive,
            &mut self.retry,
            &mut self.replay_time,
            &mut self.request_timeout,
            &mut self.question_timeout,
            &mut self.max_task_time,
            &mut self.cancel_grace,
            &mut self.listener_timeout,
            &mut self.handshake_timeout,
            &mut self.park_time,
            &mut self.modern_sse_upgrade_delay,
        ] {
            *duration = CENTURY.min(*duration);
        }
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        let limits = |messages, mib| QueueLimits {
            messages,
            bytes: mib * MIB,
        };
        Self {
            max_line: 16 * MIB,
            sse_upgrade_delay: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            retry: Duration::from_secs(1),
            replay_time: Duration::from_secs(300),
            request_timeout: Duration::from_secs(600),
            question_timeout: Duration::from_secs(600),
            max_task_time: Duration::from_secs(24 * 3600),
            cancel_grace: Duration::from_secs(5),
            listener_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(30),
            max_in_flight: 1024,
            max_listeners: 16,
            max_server_requests: 256,
            outgoing: limits(2048, 32),
            backlog: limits(256, 16),
            max_unflushed: 32 * MIB,
            replay_buffer: limits(2048, 4),
            memory: MemoryBudget::new(256 * MIB),
            max_subscriptions: 1024,
            park_time: Duration::from_secs(300),
            max_parked: 16,
            parked_calls: ParkedCalls::new(1000),
            modern_sse_upgrade_delay: Duration::from_secs(10),
            state_sealer: None,
            sessionless_legacy: true,
            era_counts: EraCounts::default(),
            drop_counts: DropCounts::default(),
        }
    }
}
