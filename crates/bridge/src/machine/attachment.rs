//! Links that come and go: start, attachment, retirement, end.
//!
//! A new link gets what the client has set only once it is attached, in the step that makes it the
//! current one: first the settings, then the calls that waited. So no setting is lost between the
//! start of a server and its attachment, and a setting that fails fails no start.

use tokio::time::Instant;

use super::StateMachine;
use crate::{
    dropped::DropReason,
    error::{ConnectError, Refusal, RejectReason},
    jsonrpc,
    tables::{
        calls::Place,
        links::{LinkEntry, LinkNumber, OwnRequest, Replay, Stage},
        lists::Probe,
        settings::ClientSetting,
        timers::Timer,
    },
};

/// The number of times that a call is sent again which a server may have read.
const MAX_RESENDS: u8 = 3;

impl StateMachine {
    /// Adds a link that is not attached yet, and replays the recorded handshake to its server.
    /// False if the conversation has ended.
    pub(crate) fn start_link(&mut self, number: LinkNumber) -> bool {
        if self.closed.is_some() || self.links.get(number).is_some() {
            return false;
        }
        let mut entry = LinkEntry::starting(self.config.outgoing);
        if self.handshake.has_record()
            && let own = self.calls.next_number()
            && let Some(initialize) = self.handshake.initialize(own)
        {
            entry.replay = Replay::Pending;
            entry.own.insert(own, OwnRequest::Initialize);
            // The outbox is empty, so the line fits.
            let _ = entry.outbox.push_own(initialize);
        }
        self.links.insert(number, entry);
        true
    }

    /// The outcome of a replayed handshake; `None` while it is under way.
    ///
    /// # Errors
    ///
    /// Those of [`Conversation::connect`](crate::Conversation::connect).
    pub(crate) fn replayed(&mut self, number: LinkNumber) -> Option<Result<(), ConnectError>> {
        let Some(entry) = self.links.get(number) else {
            return Some(Err(ConnectError::Ended));
        };
        match entry.replay.clone() {
            Replay::None => Some(Ok(())),
            Replay::Pending => None,
            Replay::Answered { error, outcome } => Some(self.handshake.check_replay(error, &outcome).map(|changed| {
                if changed {
                    self.note_change();
                }
            })),
        }
    }

    /// Makes a link the current one. Nothing happens if a newer one was attached before.
    pub(crate) fn attach(&mut self, now: Instant, number: LinkNumber) {
        if !self.links.attach(number) {
            return;
        }
        let replayed = self.links.get(number).is_some_and(|entry| entry.replay != Replay::None);
        if replayed {
            self.confirm_replay(number);
            self.send_settings(number);
        }
        self.dispatch_waiting(now);
        if replayed {
            self.send_probes(number);
        }
    }

    /// Replays the client's settings to a server.
    pub(crate) fn send_settings(&mut self, number: LinkNumber) {
        if self.handshake.is_confirmed() {
            for setting in self.handshake.settings().iter().collect::<Vec<_>>() {
                self.send_setting(number, &setting);
            }
        }
    }

    /// Fetches the lists that the client has fetched, to find out whether they differ.
    pub(crate) fn send_probes(&mut self, number: LinkNumber) {
        if self.handshake.is_confirmed() {
            for list in self.lists.fetched().collect::<Vec<_>>() {
                self.send_probe(number, Probe::new(list), None);
            }
        }
    }

    /// Takes the place of the current link away if nothing is in flight on it. False if something
    /// is.
    pub(crate) fn retire_if_idle(&mut self, number: LinkNumber) -> bool {
        let idle = self.in_flight(number) == 0;
        if idle {
            self.links.release(number);
        }
        idle
    }

    /// Takes the place of the current link away. What runs on it stays until its end.
    pub(crate) fn detach(&mut self, number: LinkNumber) {
        self.links.release(number);
    }

    /// The calls, questions and tasks in flight on a link.
    pub(crate) fn in_flight(&self, number: LinkNumber) -> usize {
        self.calls.count_on(number) + self.questions.count_on(number) + self.tasks.count_busy(number)
    }

    /// The server accepts no more messages. It may still answer those that it has read; the others
    /// wait for the next one.
    pub(crate) fn close_write(&mut self, now: Instant, number: LinkNumber) {
        self.links.release(number);
        let Some(entry) = self.links.get_mut(number) else {
            return;
        };
        entry.write_closed = true;
        entry.outbox.clear();
        for call in self.calls.all_on(number) {
            if !self.is_unwritten(call) {
                continue;
            }
            let Some(entry) = self.calls.get(call) else { continue };
            if entry.cancelled {
                self.finish_cancelled(now, call);
            } else if entry.modern.as_ref().is_some_and(|modern| modern.is_parked()) {
                // The next retry finds no call.
                self.take_call(call);
            } else {
                self.requeue(call);
            }
        }
        self.dispatch_waiting(now);
    }

    /// A link has ended: settles everything that was on it. Its questions are cancelled at the
    /// client before its calls get their errors.
    pub(crate) fn end_link(&mut self, now: Instant, number: LinkNumber) {
        let Some(entry) = self.links.remove(number) else {
            return;
        };
        self.note_end();
        for question in self.questions.all_on(number) {
            self.cancel_question(question, "the MCP server has ended");
        }
        for task in self.tasks.remove_link(number) {
            self.timers.cancel(&Timer::Task(task));
        }
        for call in self.calls.all_on(number) {
            self.settle(now, call, &entry);
        }
        self.dispatch_waiting(now);
        self.note_stream_changes();
    }

    /// The session has ended: everything that waits ends. A call that a server may have carried out
    /// gets an error that says so, whichever is noticed first: the end of its server, or that of
    /// the session.
    pub(crate) fn close(&mut self, now: Instant, why: &Refusal) {
        self.closed.get_or_insert_with(|| why.clone());
        for question in self.questions.take_all() {
            self.timers.cancel(&Timer::Question(question));
            self.streams.withdraw(question);
        }
        for number in self.calls.numbers() {
            let Some(call) = self.calls.get(number) else { continue };
            if call.link().is_none() || call.unsent || self.is_unwritten(number) {
                self.refuse_call(now, number, why);
            } else {
                self.finish_unknown(now, number);
            }
        }
        self.end_subscriptions();
        self.streams.end_listeners();
        self.note_stream_changes();
    }

    /// The error of a session that has ended.
    pub(crate) fn closed(&self) -> Option<Refusal> {
        self.closed.clone()
    }

    /// Replays a setting of the client.
    pub(super) fn send_setting(&mut self, link: LinkNumber, setting: &ClientSetting) {
        let number = self.calls.next_number();
        let line = setting.request(&number.to_string());
        self.send_own_request(link, number, OwnRequest::Setting, line);
    }

    /// Fetches a page of a list.
    pub(super) fn send_probe(&mut self, link: LinkNumber, probe: Probe, cursor: Option<&str>) {
        let number = self.calls.next_number();
        let line = probe.request(number, cursor);
        self.send_own_request(link, number, OwnRequest::List(probe), line);
    }

    pub(super) fn send_own_request(&mut self, link: LinkNumber, number: u64, request: OwnRequest, line: String) {
        let Some(entry) = self.links.get_mut(link).filter(|entry| !entry.write_closed) else {
            return;
        };
        // A request that is not sent has no answer that would remove it.
        if entry.outbox.push_own(line.into()) {
            entry.own.insert(number, request);
        } else {
            self.count(DropReason::ServerNotReading);
        }
    }

    /// Decides about a call whose link has ended: it waits for the next one, or gets its error.
    fn settle(&mut self, now: Instant, number: u64, entry: &LinkEntry) {
        let Some(call) = self.calls.get_mut(number) else { return };
        let Place::Link { line, .. } = call.place else { return };
        if call.cancelled {
            self.finish_cancelled(now, number);
            return;
        }
        if call.modern.as_ref().is_some_and(|modern| modern.is_parked()) {
            // The next retry finds no call.
            self.take_call(number);
            return;
        }
        let unread = call.unsent || entry.outbox.is_unwritten(line);
        // A server that has asked may have done a part of the call.
        let asked = call.modern.as_ref().is_some_and(|modern| modern.questions > 0);
        let again = unread || (call.repeatable && !asked && call.resends < MAX_RESENDS);
        if again && self.closed.is_none() {
            call.resends += u8::from(!unread);
            self.requeue(number);
            return;
        }
        self.finish_unknown(now, number);
    }

    /// Lets a call wait for another link. Questions about it stay with the server that has asked.
    fn requeue(&mut self, number: u64) {
        self.drop_questions(number, "the request is no longer at this server");
        self.calls.requeue(number);
    }

    /// Ends a call whose server is gone and may have carried it out.
    fn finish_unknown(&mut self, now: Instant, number: u64) {
        let why = RejectReason::ServerEnded.to_string();
        self.finish(now, number, |id| jsonrpc::error(id, jsonrpc::UNAVAILABLE, &why));
    }

    /// True if no part of a call was written to its server.
    fn is_unwritten(&self, call: u64) -> bool {
        let Some(Place::Link { link, line }) = self.calls.get(call).map(|call| call.place) else {
            return false;
        };
        self.links
            .get(link)
            .is_some_and(|entry| entry.outbox.is_unwritten(line))
    }

    /// True if a server may begin something by itself: it is the current one, or runs a call.
    pub(super) fn may_ask(&self, link: LinkNumber) -> bool {
        let current = self.links.get(link).is_some_and(|entry| entry.stage == Stage::Current);
        current || self.calls.count_on(link) > 0
    }
}
