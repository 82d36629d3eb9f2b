//! The translator of a link to a server of the modern era, between the machine and the stream.
//!
//! Lines of the machine are translated when the stream takes them, and lines of the server when
//! they have arrived; what the translator has to say to the machine is delivered at once. All of it
//! happens in the task of the link, so that the order of the messages stays.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{LinkTask, framing::Frame, modern_server::ModernServer, unreadable_line};
use crate::{
    config::Config,
    dropped::DropReason,
    jsonrpc::{Envelope, MessageError},
};

#[derive(Debug)]
pub(crate) struct Translation {
    /// Never held across an await.
    server: Mutex<ModernServer>,
    /// The next deadline has changed.
    deadline_changed: Notify,
}

impl Translation {
    /// The flag is set when the server turns out to be of another era.
    pub(crate) fn new(config: &Config, era_refused: &Arc<AtomicBool>) -> Self {
        Self {
            server: Mutex::new(ModernServer::new(config.clone(), Arc::clone(era_refused))),
            deadline_changed: Notify::new(),
        }
    }

    /// The next lines for the server, each with its line break.
    pub(crate) fn take_output(&self, link: &LinkTask) -> Option<Bytes> {
        loop {
            if let Some(lines) = self.lock().take_output() {
                return Some(lines);
            }
            let (shared, number) = (&link.inbox.shared, link.inbox.number);
            let lines = shared.step(|machine| machine.take_output(number))?;
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // The machine writes nothing else.
                if let Ok(message) = Envelope::parse(line) {
                    self.step(link, |server, now| server.receive_from_machine(now, &message));
                }
            }
        }
    }

    /// Accepts a line of the server.
    pub(crate) fn receive(&self, link: &LinkTask, frame: &Frame) {
        let drop_counts = &link.inbox.config.drop_counts;
        let (answered, why) = match frame {
            Frame::Line(line) if line.trim_ascii().is_empty() => return,
            Frame::Line(line) => match Envelope::parse(line) {
                Ok(message) => return self.step(link, |server, now| server.receive_from_server(now, &message)),
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
            self.step(link, |server, now| server.invalid_response(now, id, why));
        }
    }

    /// Runs what is due, without an end.
    pub(crate) async fn run_timers(&self, link: &LinkTask) -> Infallible {
        loop {
            let next = self.lock().next_deadline();
            match next {
                Some(at) if timeout_at(at, self.deadline_changed.notified()).await.is_err() => {
                    self.step(link, ModernServer::run_timers);
                }
                Some(_) => {}
                None => self.deadline_changed.notified().await,
            }
        }
    }

    fn step(&self, link: &LinkTask, step: impl FnOnce(&mut ModernServer, Instant) -> Vec<Bytes>) {
        let (replies, changed, has_output) = {
            let mut server = self.lock();
            let before = server.next_deadline();
            let replies = step(&mut server, Instant::now());
            (replies, server.next_deadline() != before, server.has_output())
        };
        for reply in replies {
            match Envelope::parse(&reply) {
                Ok(message) => link.inbox.deliver(message),
                // The parts of the server are JSON already, but may be nested too deeply.
                Err(_) => link.inbox.config.drop_counts.count(DropReason::InvalidMessage),
            }
        }
        if changed {
            self.deadline_changed.notify_one();
        }
        if has_output {
            link.output.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ModernServer> {
        // A step that panicked has failed its own message; the others continue.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
