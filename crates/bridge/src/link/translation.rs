//! The translator of a link to a server of the modern era, between the machine and the stream or
//! the requests over HTTP.
//!
//! Lines of the machine are translated when the link takes them, and lines of the server when they
//! have arrived; what the translator has to say to the machine is delivered at once, so that the
//! order of the messages stays.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{LinkTask, framing::Frame, inbox::Inbox, modern_server::ModernServer, unreadable_line};
#[cfg(feature = "http")]
use crate::machine::{OutgoingKind, OutgoingMessage};
use crate::{
    dropped::DropReason,
    jsonrpc::{Envelope, MessageError},
};

#[derive(Debug)]
pub(crate) struct Translation {
    pub(super) inbox: Inbox,
    /// Lines wait for the server.
    output: Arc<Notify>,
    /// The client's own `initialize` and its number, if it went to this link.
    #[cfg(feature = "http")]
    handshake: Mutex<Option<(u64, Bytes)>>,
    /// Never held across an await.
    server: Mutex<ModernServer>,
    /// The next deadline has changed.
    deadline_changed: Notify,
}

impl Translation {
    /// The translation of a link. The flag is set when the server turns out to be of another era.
    pub(crate) fn new(link: &LinkTask, era_refused: &Arc<AtomicBool>) -> Self {
        let config = link.inbox.config.clone();
        Self {
            inbox: link.inbox.clone(),
            output: Arc::clone(&link.output),
            #[cfg(feature = "http")]
            handshake: Mutex::default(),
            server: Mutex::new(ModernServer::new(config, Arc::clone(era_refused))),
            deadline_changed: Notify::new(),
        }
    }

    /// The next lines for the server, each with its line break.
    pub(crate) fn take_output(&self) -> Option<Bytes> {
        loop {
            if let Some(lines) = self.lock().take_output() {
                return Some(lines);
            }
            let (shared, number) = (&self.inbox.shared, self.inbox.number);
            let lines = shared.step(|machine| machine.take_output(number))?;
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // The machine writes nothing else.
                if let Ok(message) = Envelope::parse(line) {
                    self.step(|server, now| server.receive_from_machine(now, &message));
                }
            }
        }
    }

    /// The next line for the server, without its line break. Its call counts as unread until
    /// [`mark_sent`](Self::mark_sent).
    #[cfg(feature = "http")]
    pub(crate) fn take_line(&self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lock().take_line() {
                return Some(line);
            }
            let (shared, number) = (&self.inbox.shared, self.inbox.number);
            let OutgoingMessage { line, kind } = shared.step(|machine| machine.take_message(number))?;
            if let OutgoingKind::Request {
                number,
                handshake: true,
            } = kind
            {
                *self.handshake.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, line.clone()));
            }
            // The machine writes nothing else.
            if let Ok(message) = Envelope::parse(&line) {
                self.step(|server, now| server.receive_from_machine(now, &message));
            }
        }
    }

    /// Notes that the request of this id goes to the server.
    #[cfg(feature = "http")]
    pub(crate) fn mark_sent(&self, id: u64) {
        let number = self.lock().number_of(id);
        if let Some(number) = number {
            let link = self.inbox.number;
            self.inbox.shared.step(|machine| machine.mark_sent(link, number));
        }
    }

    /// Notes that the server has not acted on the handshake, which waits for another link then.
    #[cfg(feature = "http")]
    pub(crate) fn mark_handshake_unread(&self) {
        let handshake = self.handshake.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((number, line)) = handshake {
            let link = self.inbox.number;
            self.inbox
                .shared
                .step(|machine| machine.mark_unread(link, number, line));
        }
    }

    /// Accepts a line of the server. Returns the request that an unreadable line seems to answer.
    pub(crate) fn receive(&self, frame: &Frame) -> Option<u64> {
        let drop_counts = &self.inbox.config.drop_counts;
        let (answered, why) = match frame {
            Frame::Line(line) if line.trim_ascii().is_empty() => return None,
            Frame::Line(line) => match Envelope::parse(line) {
                Ok(message) => {
                    self.receive_message(&message);
                    return None;
                }
                Err(error) => {
                    drop_counts.count(match error {
                        MessageError::NotUtf8 | MessageError::NotJson => DropReason::InvalidJson,
                        MessageError::Batch | MessageError::NotJsonRpc(_) => DropReason::InvalidMessage,
                    });
                    let answered = unreadable_line::answered_call(line);
                    (answered, "the response of the MCP server is invalid")
                }
            },
            Frame::TooLong(excerpt) => {
                drop_counts.count(DropReason::LineTooLong);
                let answered = unreadable_line::answered_call_of_excerpt(excerpt);
                (answered, "the response of the MCP server is too long")
            }
        };
        if let Some(id) = answered {
            self.fail(id, why);
        }
        answered
    }

    /// Accepts a message of the server.
    pub(crate) fn receive_message(&self, message: &Envelope) {
        self.step(|server, now| server.receive_from_server(now, message));
    }

    /// Fails a request that the server has not answered, by its id there.
    pub(crate) fn fail(&self, id: u64, why: &str) {
        self.step(|server, now| server.invalid_response(now, id, why));
    }

    /// Runs what is due, without an end.
    pub(crate) async fn run_timers(&self) -> Infallible {
        loop {
            let next = self.lock().next_deadline();
            match next {
                Some(at) if timeout_at(at, self.deadline_changed.notified()).await.is_err() => {
                    self.step(ModernServer::run_timers);
                }
                Some(_) => {}
                None => self.deadline_changed.notified().await,
            }
        }
    }

    fn step(&self, step: impl FnOnce(&mut ModernServer, Instant) -> Vec<Bytes>) {
        let (replies, changed, has_output) = {
            let mut server = self.lock();
            let before = server.next_deadline();
            let replies = step(&mut server, Instant::now());
            (replies, server.next_deadline() != before, server.has_output())
        };
        for reply in replies {
            match Envelope::parse(&reply) {
                Ok(message) => self.inbox.deliver(message),
                // The parts of the server are JSON already, but may be nested too deeply.
                Err(_) => self.inbox.config.drop_counts.count(DropReason::InvalidMessage),
            }
        }
        if changed {
            self.deadline_changed.notify_one();
        }
        if has_output {
            self.output.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ModernServer> {
        // A step that panicked has failed its own message; the others continue.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
