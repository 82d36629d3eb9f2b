//! Notifications and responses of a client.
//!
//! Each goes to the server that it is for, which may be a retired one: a cancellation to the link
//! that runs the call, a response and its progress to the link that has asked. None of them starts
//! a server: a new server has asked nothing, runs no call, and asks for the roots by itself.

use bytes::Bytes;
use tokio::time::Instant;

use super::StateMachine;
use crate::{
    dropped::DropReason,
    error::RejectReason,
    jsonrpc::{Envelope, Id},
    tables::timers::Timer,
};

impl StateMachine {
    /// Accepts a notification of a client. Without a session id (not `keyed`) a cancellation acts
    /// only if one request in flight has its id: several clients may share the session.
    ///
    /// # Errors
    ///
    /// [`RejectReason::ServerNotReading`].
    pub(crate) fn notify(
        &mut self,
        now: Instant,
        message: Envelope,
        method: &str,
        keyed: bool,
    ) -> Result<(), RejectReason> {
        match method {
            "notifications/initialized" => return self.on_initialized(message),
            "notifications/cancelled" => self.cancel(now, &message, keyed),
            "notifications/progress" => self.on_client_progress(&message),
            _other => {
                self.prove_initialized();
                let Some(current) = self.links.current() else {
                    self.count(DropReason::UnmatchedClientMessage);
                    return Ok(());
                };
                self.confirm_replay(current);
                let entry = self.links.get_mut(current);
                if entry.is_some_and(|entry| !entry.outbox.push(message.into_line())) {
                    return Err(RejectReason::ServerNotReading);
                }
            }
        }
        Ok(())
    }

    /// Accepts the response of a client to a question.
    ///
    /// # Errors
    ///
    /// [`RejectReason::ServerNotReading`].
    pub(crate) fn respond(&mut self, message: &Envelope, id: Option<&Id>) -> Result<(), RejectReason> {
        let Some((number, question)) = id.and_then(|id| self.questions.find(id)) else {
            self.count(DropReason::UnmatchedClientMessage);
            return Ok(());
        };
        let line = message.with_id(question.server_id.raw());
        if let Some(entry) = self.links.get_mut(question.link)
            && !entry.write_closed
            && !entry.outbox.push(line)
        {
            return Err(RejectReason::ServerNotReading);
        }
        self.take_question(number);
        Ok(())
    }

    /// Any message of a client but `initialize` proves that it has confirmed the handshake, even if
    /// the confirmation was lost with an earlier instance.
    pub(super) fn prove_initialized(&mut self) {
        if self.handshake.prove_confirmed() {
            self.note_change();
        }
    }

    fn on_initialized(&mut self, message: Envelope) -> Result<(), RejectReason> {
        // A client whose `initialize` was answered from the record confirms again.
        if self.handshake.is_confirmed() {
            return Ok(());
        }
        if let Some(current) = self.links.current()
            && let Some(entry) = self.links.get_mut(current)
            && !entry.initialized
        {
            if !entry.outbox.push(message.into_line()) {
                return Err(RejectReason::ServerNotReading);
            }
            entry.initialized = self.handshake.has_record();
        }
        if self.handshake.confirm() {
            self.note_change();
        }
        Ok(())
    }

    fn cancel(&mut self, now: Instant, message: &Envelope, keyed: bool) {
        let id = message.param_id("requestId");
        let number = id.and_then(|id| {
            if keyed {
                self.calls.by_key(id.key())
            } else {
                self.calls.only_with_id(id.key())
            }
        });
        let Some((number, call)) = number.and_then(|number| Some((number, self.calls.get(number)?))) else {
            self.count(DropReason::UnmatchedClientMessage);
            return;
        };
        // A client must not cancel `initialize` (MCP 2025-11-25, "Cancellation").
        if &*call.method != "initialize" {
            self.cancel_call(now, number, message.with_param("requestId", &number.to_string()));
        }
    }

    /// Cancels a call. The server that runs it gets the line.
    pub(super) fn cancel_call(&mut self, now: Instant, number: u64, line: Bytes) {
        let Some(call) = self.calls.get_mut(number) else { return };
        call.cancelled = true;
        let Some(link) = call.link() else {
            // No server has it.
            self.finish_cancelled(now, number);
            return;
        };
        let at = now + self.config.cancel_grace;
        self.timers.set_at_most(Timer::Call(number), at);
        self.send_own(link, line);
    }

    /// The client reports progress on a question.
    fn on_client_progress(&mut self, message: &Envelope) {
        let token = message.param_id("progressToken");
        let question = token.and_then(|token| self.questions.find(&token).map(|(_, question)| question));
        let Some((link, token)) = question.and_then(|question| Some((question.link, question.token.clone()?))) else {
            self.count(DropReason::UnmatchedClientMessage);
            return;
        };
        self.send_own(link, message.with_param("progressToken", token.raw()));
    }
}
