//! Clients of 2026-07-28, whose requests share the servers of one session.
//!
//! A request becomes a call. Its client cannot come back to a stream, so a client that leaves
//! cancels (MCP 2026-07-28, "Cancellation"). A message of a server that belongs to no call goes to
//! the streams of `subscriptions/listen`. Ids of clients are compared by nothing: several clients
//! of one grant may use the same.
//!
//! A question of a server ends the exchange of its call with a result that asks for input; the call
//! itself stays, bound to the server that runs it, until a retry brings the answers (`questions`,
//! `retries`). `responses` translates what servers answer, `notifications` what they announce, and
//! `tasks` has the calls that run on after their response.
//!
//! Invariants:
//! - A question belongs to at most one call, which runs on the link of the question.
//! - A call that is parked has no client, and a timer that ends it.
//! - An answer reaches the question whose key it has, in the round that has asked it, and once.

mod notifications;
mod questions;
mod responses;
mod retries;
mod tasks;

use std::collections::HashSet;

use tokio::time::Instant;

use super::StateMachine;
use crate::{
    error::RejectReason,
    jsonrpc::{self, Envelope, MessageError, MessageKind},
    modern::{ModernError, ModernRequest, input::InputResponses, results, tools::Tools},
    streams::{Reader, StreamId},
    tables::{
        calls::Call,
        modern_calls::{ModernCall, Rounds, Stage},
        settings::ClientSetting,
        subscriptions::Subscriptions,
        timers::Timer,
    },
};

/// The state that only conversations of this era have.
#[derive(Debug)]
pub(crate) struct Modern {
    /// Part of each `requestState`.
    tag: Box<str>,
    principal: Box<str>,
    epoch: u64,
    /// `None` until they are read, and after they have changed.
    tools: Option<Tools>,
    /// The tools and prompts that have asked questions.
    askers: HashSet<Box<str>>,
    rounds: Rounds,
    subscriptions: Subscriptions,
}

/// The number of names that are remembered as asking.
const MAX_ASKERS: usize = 256;

impl Modern {
    pub(super) fn new(tag: &str, principal: &str, epoch: u64) -> Self {
        Self {
            tag: tag.into(),
            principal: principal.into(),
            epoch,
            tools: None,
            askers: HashSet::new(),
            rounds: Rounds::default(),
            subscriptions: Subscriptions::default(),
        }
    }

    /// The tools of the server, once they are read.
    pub(crate) fn tools(&self) -> Option<&Tools> {
        self.tools.as_ref()
    }

    pub(crate) fn set_tools(&mut self, tools: Tools) {
        self.tools = Some(tools);
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.rounds.bytes()
    }

    pub(super) fn is_blank(&self) -> bool {
        self.rounds.is_empty() && self.subscriptions.is_empty()
    }

    fn note_asker(&mut self, name: Option<&str>) {
        if self.askers.len() < MAX_ASKERS {
            self.askers.extend(name.map(Box::from));
        }
    }
}

impl StateMachine {
    /// Accepts a request. Its response, and the notifications before it, will be on the stream.
    ///
    /// # Errors
    ///
    /// A [`ModernError`].
    pub(crate) fn modern_request(&mut self, now: Instant, mut request: ModernRequest) -> Result<Reader, ModernError> {
        if self.modern.is_none() {
            return Err(ModernError::method_not_found());
        }
        if request.may_be_asked() {
            let answers = InputResponses::parse(request.input_responses.as_deref())?;
            return match request.request_state.take() {
                Some(state) => self.retry(now, request, &state, answers),
                None => self.begin_modern(now, request, answers),
            };
        }
        if &*request.method == "subscriptions/listen" {
            return self.subscribe(request);
        }
        if &*request.method == "server/discover"
            && let Some(result) = self.handshake.result().and_then(results::discover)
        {
            // The record is enough: no server is woken for the first request of every client.
            let reader = self.streams.open_private(&request.id);
            let id = request.id.raw();
            self.put_response(now, reader.stream, id, jsonrpc::result(id, &result));
            return Ok(reader);
        }
        self.begin_modern(now, request, InputResponses::default())
    }

    /// Begins the call of a request.
    fn begin_modern(
        &mut self,
        now: Instant,
        request: ModernRequest,
        answers: InputResponses,
    ) -> Result<Reader, ModernError> {
        self.check_room(1).map_err(|reason| ModernError::rejected(&reason))?;
        let request = self.as_task(request)?;
        let reader = self.streams.open_private(&request.id);
        let mut call = Call::new(request.id, &request.method, 0, reader.stream);
        call.keyed = false;
        call.token = request.token;
        let mut modern = ModernCall::new(request.name, request.content, request.capabilities, request.log_level);
        modern.task = request.as_task;
        modern.keep_answers(answers.answers);
        call.modern = Some(Box::new(modern));
        self.begin(now, &request.message, call);
        Ok(reader)
    }

    /// Begins a request of the conversation itself that waits for a server as those of clients do.
    /// Its response will be on the stream as the server writes it.
    ///
    /// # Errors
    ///
    /// [`RejectReason::TooManyRequests`], and [`RejectReason::InvalidMessage`] for a message that
    /// is no request.
    pub(crate) fn internal_request(&mut self, now: Instant, request: &Envelope) -> Result<Reader, RejectReason> {
        self.check_room(1)?;
        let MessageKind::Request { id, method } = request.kind() else {
            return Err(RejectReason::InvalidMessage(MessageError::NotJsonRpc(None)));
        };
        let reader = self.streams.open_private(id);
        let mut call = Call::new(id.clone(), method, 0, reader.stream);
        call.keyed = false;
        self.begin(now, request, call);
        Ok(reader)
    }

    /// Prepares the link for a call that is about to be sent on it, or goes on there: the log level
    /// that the calls in flight want.
    pub(super) fn before_modern_call(&mut self, number: u64, link: u64) {
        let levels = self.calls.on(link).chain(self.calls.get(number));
        let levels = levels.filter_map(|call| call.modern.as_ref()?.log_level);
        let Some(level) = levels.min() else { return };
        let entry = self.links.get_mut(link);
        let Some(entry) = entry.filter(|entry| entry.log_level != Some(level) && !entry.write_closed) else {
            return;
        };
        if self.handshake.has_capability("logging") {
            entry.log_level = Some(level);
            self.send_setting(link, &ClientSetting::LogLevel(level.name().into()));
        }
    }

    /// A client has left the stream of its request.
    pub(super) fn client_left(&mut self, now: Instant, stream: StreamId) {
        let Some(modern) = &mut self.modern else { return };
        modern.rounds.unfollow(stream);
        if let Some((_, filter)) = modern.subscriptions.take(stream) {
            self.unsubscribe(&filter);
            return;
        }
        let running = self.calls.numbers().into_iter().filter(|number| {
            let call = self.calls.get(*number).filter(|call| call.stream == stream);
            call.is_some_and(|call| !call.modern.as_ref().is_some_and(|modern| modern.is_parked()))
        });
        for number in running.collect::<Vec<_>>() {
            self.abandon(now, number);
        }
    }

    /// The client of a call has left. Another retry that waits for the same outcome takes its
    /// place; without one, the call is cancelled.
    fn abandon(&mut self, now: Instant, number: u64) {
        if let (Some(modern), Some(call)) = (&mut self.modern, self.calls.get_mut(number))
            && let Some(round) = call.modern.as_ref().and_then(|call| call.round.checked_sub(1))
            && let Some(round) = modern.rounds.get_mut((number, round))
            && let Some(follower) = round.followers.pop()
        {
            (call.id, call.stream, call.token) = (follower.id, follower.stream, follower.token);
            let link = call.link();
            if let Some(call) = call.modern.as_mut() {
                (call.capabilities, call.log_level) = (follower.capabilities, follower.log_level);
            }
            if let Some(link) = link {
                self.before_modern_call(number, link);
            }
            return;
        }
        self.drop_questions(number, "the client has cancelled the request");
        let cancelled = jsonrpc::cancelled(&number.to_string(), "the client has closed the stream");
        self.cancel_call(now, number, cancelled);
    }

    /// Gives up the questions about a call, which goes on without them.
    pub(super) fn drop_questions(&mut self, number: u64, why: &str) {
        let Some(modern) = self.calls.modern_mut(number) else {
            return;
        };
        modern.stage = Stage::Running;
        let asked = self.calls.take_asked(number);
        self.timers.cancel(&Timer::Gather(number));
        for asked in asked {
            self.reject_question(asked.question, jsonrpc::UNAVAILABLE, why);
        }
    }
}
