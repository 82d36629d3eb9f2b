//! Messages of the servers.
//!
//! A response finds its call by the number under which the call was sent to this very link. The
//! conversation counts and drops a message that matches nothing.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{StateMachine, unsupported_version};
use crate::{
    dropped::DropReason,
    jsonrpc::{self, Envelope, Id, MessageKind, json},
    streams::{StreamId, StreamMessage, StreamMessageKind},
    tables::{
        calls::{Call, OnSuccess},
        links::{LinkNumber, OwnRequest, Replay},
        lists::Page,
        settings::ClientSetting,
        timers::Timer,
    },
};

/// A response of up to this size, in bytes, always fits, because its error would be as large.
const SMALL_RESPONSE: usize = 1024;

pub(super) const CLIENT_NOT_READING: &str = "too many messages wait for the client";
const INVALID_RESPONSE: &str = "the response of the MCP server is invalid";

impl StateMachine {
    /// Handles a message of the server of a link.
    pub(crate) fn receive(&mut self, now: Instant, link: LinkNumber, message: Envelope) {
        if self.links.get(link).is_none() {
            return;
        }
        match message.kind().clone() {
            MessageKind::Response { id, error } => self.on_response(now, link, &message, id.as_ref(), error),
            MessageKind::Request { id, method } => self.on_request(now, link, id, &method, &message),
            MessageKind::Notification { method } => self.on_notification(link, message, &method),
        }
        self.note_stream_changes();
    }

    /// Fails the call that an unreadable line of a server has answered.
    pub(crate) fn invalid_response(&mut self, now: Instant, link: LinkNumber, number: u64, why: &str) {
        if let Some(call) = self.calls.on_link(link, number) {
            tracing::warn!(method = &*call.method, link, why, "invalid response of the MCP server");
        }
        self.fail_on_link(now, link, number, why);
        self.note_stream_changes();
    }

    /// Ends a call, or a request of the conversation itself, with an error.
    pub(super) fn fail_on_link(&mut self, now: Instant, link: LinkNumber, number: u64, why: &str) {
        let own = self.links.get_mut(link).and_then(|entry| entry.own.remove(&number));
        if let Some(own) = own {
            self.on_own_response(link, own, true, "null");
        }
        if self.calls.on_link(link, number).is_some() {
            self.finish(now, number, |id| jsonrpc::error(id, jsonrpc::UNAVAILABLE, why));
        }
    }

    fn on_response(&mut self, now: Instant, link: LinkNumber, message: &Envelope, id: Option<&Id>, error: bool) {
        let Some(number) = id.and_then(Id::number) else {
            // The ids of calls are numbers, so a string is not the id of any.
            self.count(DropReason::UnmatchedResponse);
            if let Some(number) = id.and_then(Id::text).and_then(|text| text.parse().ok()) {
                self.invalid_response(now, link, number, INVALID_RESPONSE);
            }
            return;
        };
        if let Some(own) = self.links.get_mut(link).and_then(|entry| entry.own.remove(&number)) {
            self.on_own_response(link, own, error, message.outcome());
            return;
        }
        let Some(call) = self.calls.on_link(link, number) else {
            self.count(DropReason::UnmatchedResponse);
            return;
        };
        let (on_success, method, token) = (
            std::mem::take(&mut call.on_success),
            call.method.clone(),
            call.token.clone(),
        );
        if let Some(entry) = self.links.get(link) {
            entry.answered.store(true, Ordering::Relaxed);
        }
        if !error {
            self.succeeded(
                now,
                link,
                on_success,
                &method,
                message.outcome(),
                token.map(|token| (number, token)),
            );
        }
        let mut too_new = None;
        if self.handshake.is_pending(number) {
            too_new = self.handshake.complete(error, message.outcome());
            if self.handshake.has_record() {
                self.note_change();
            }
        }
        let delivered = self.finish(now, number, |id| match &too_new {
            None => message.with_id(id),
            Some(version) => jsonrpc::error_with(
                Some(id),
                jsonrpc::INVALID_PARAMS,
                "the server negotiated an unsupported protocol version",
                Some(&unsupported_version(version)),
            ),
        });
        if !delivered {
            self.count(DropReason::ClientGone);
        }
    }

    /// Records what the success of a call changes.
    fn succeeded(
        &mut self,
        now: Instant,
        link: LinkNumber,
        on_success: OnSuccess,
        method: &str,
        result: &str,
        progress: Option<(u64, Id)>,
    ) {
        match on_success {
            OnSuccess::Nothing => {}
            OnSuccess::Setting(setting) => self.setting_granted(link, setting),
            OnSuccess::Page { cursor } => {
                if self.lists.fetched_page(method, cursor.as_deref(), result) {
                    self.note_change();
                }
            }
            OnSuccess::CreatesTask => self.task_created(now, link, result, progress),
            OnSuccess::FinishesTask(id) => self.finish_task(&id, link),
        }
    }

    /// Records a setting that a server has granted. If another one serves the session by now, it
    /// gets the setting, too.
    fn setting_granted(&mut self, link: LinkNumber, setting: ClientSetting) {
        if let Some(current) = self.links.current().filter(|current| *current != link) {
            self.send_setting(current, &setting);
        }
        if !self.handshake.apply_setting(setting, self.config.max_subscriptions) {
            self.count(DropReason::SettingLost);
        }
        self.note_change();
    }

    fn task_created(&mut self, now: Instant, link: LinkNumber, result: &str, progress: Option<(u64, Id)>) {
        let Some(task) = json::member(result, "task").map(|at| &result[at]) else {
            return;
        };
        let Some(id) = task_id(Some(task)) else { return };
        let ttl = json::member(task, "ttl").and_then(|at| task[at].parse().ok());
        let ttl = ttl.map_or(self.config.request_timeout, Duration::from_millis);
        if self.tasks.insert(&id, link, progress) {
            let at = now + ttl.min(self.config.max_task_time);
            self.timers.set(Timer::Task(id.into()), at);
        }
    }

    /// The answer to a request of the conversation itself.
    fn on_own_response(&mut self, link: LinkNumber, own: OwnRequest, error: bool, outcome: &str) {
        match own {
            OwnRequest::Initialize => {
                if let Some(entry) = self.links.get_mut(link) {
                    let outcome = outcome.into();
                    entry.replay = Replay::Answered { error, outcome };
                }
                self.progress = true;
            }
            OwnRequest::Setting if error => self.count(DropReason::SettingLost),
            OwnRequest::Setting => {}
            OwnRequest::TaskResult(task) => self.on_task_outcome(&task, error, outcome),
            OwnRequest::List(_) if error => {}
            OwnRequest::List(mut probe) => match self.lists.probed_page(&mut probe, outcome) {
                Page::Next(cursor) => self.send_probe(link, probe, Some(&cursor)),
                Page::Last(digest) if self.lists.differs(probe.list.method, digest) => {
                    self.note_change();
                    let line = jsonrpc::notification(probe.list.changed);
                    if let Ok(message) = Envelope::parse(&line) {
                        self.announce_change(link, message, probe.list.changed);
                    }
                }
                Page::Last(_) | Page::Invalid => {}
            },
        }
    }

    fn on_notification(&mut self, link: LinkNumber, message: Envelope, method: &str) {
        match method {
            "notifications/progress" => return self.on_progress(link, &message),
            "notifications/cancelled" => return self.on_server_cancel(link, &message),
            // They are about the server that serves the session.
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated"
                if !self.links.is_current(link) =>
            {
                return;
            }
            "notifications/tasks/status" => self.on_task_status(link, &message),
            _other => {}
        }
        self.announce_change(link, message, method);
    }

    /// Passes on what a server tells unasked.
    fn announce_change(&mut self, link: LinkNumber, message: Envelope, method: &str) {
        if self.modern.is_some() {
            return self.on_modern_notification(link, &message, method);
        }
        let line = message.into_line();
        self.streams.route(StreamMessage {
            kind: StreamMessageKind::Notification,
            link,
            line,
        });
    }

    /// Only requests in flight, and tasks, have progress (MCP 2025-11-25, "Progress").
    fn on_progress(&mut self, link: LinkNumber, message: &Envelope) {
        let number = message.param_id("progressToken").and_then(|token| token.number());
        let Some(number) = number else {
            self.count(DropReason::UnmatchedProgress);
            return;
        };
        if let Some(call) = self.calls.on_link(link, number) {
            if let Some(modern) = call.modern.as_mut().filter(|modern| modern.is_parked()) {
                modern.progress = Some(message.clone());
                return;
            }
            let (stream, token) = (call.stream, call.token.clone());
            let line = token.map(|token| message.with_param("progressToken", token.raw()));
            // Without a reader that can come back there is nothing to report to.
            if line.is_none_or(|line| !self.streams.notify(stream, line)) {
                self.count(DropReason::UnmatchedProgress);
            }
        } else if let Some(token) = self
            .tasks
            .progress_token(link, number)
            .filter(|_| self.modern.is_none())
        {
            let line = message.with_param("progressToken", token.raw());
            self.streams.route(StreamMessage {
                kind: StreamMessageKind::Notification,
                link,
                line,
            });
        } else {
            self.count(DropReason::UnmatchedProgress);
        }
    }

    fn on_task_status(&mut self, link: LinkNumber, message: &Envelope) {
        let status = message.param("status").and_then(json::string);
        if let (Some("failed" | "cancelled"), Some(id)) = (status.as_deref(), task_id(message.params())) {
            self.finish_task(&id, link);
        }
    }

    fn finish_task(&mut self, id: &str, link: LinkNumber) {
        self.tasks.finish(id, link);
        self.note_end();
    }

    pub(super) fn respond_to_client(
        &mut self,
        now: Instant,
        call: &Call,
        response: impl FnOnce(&str) -> Bytes,
    ) -> bool {
        let id = call.id.raw();
        let line = response(id);
        if call.modern.is_some() {
            return self.respond_to_modern(now, call, &line);
        }
        self.put_response(now, call.stream, id, line)
    }

    /// Puts a response on a stream, or an error if there is no room for it. `false` if the client
    /// is gone.
    pub(super) fn put_response(&mut self, now: Instant, stream: StreamId, id: &str, mut line: Bytes) -> bool {
        if line.len() > SMALL_RESPONSE && !self.streams.has_room(stream, line.len()) {
            self.count(DropReason::ClientNotReading);
            line = jsonrpc::error(id, jsonrpc::UNAVAILABLE, CLIENT_NOT_READING);
        }
        let delivered = self.streams.respond(stream, line);
        self.schedule_expiry(now, stream);
        // A response that is kept for replay may have evicted others.
        self.note_stream_changes();
        delivered
    }

    /// Counts dropped notifications, and cancels the timers of removed streams.
    pub(super) fn note_stream_changes(&mut self) {
        for _ in 0..self.streams.take_dropped() {
            self.count(DropReason::BacklogFull);
        }
        for stream in self.streams.take_removed() {
            self.timers.cancel(&Timer::Stream(stream));
        }
    }
}

/// The id of the task that an object names.
pub(super) fn task_id(object: Option<&str>) -> Option<String> {
    let object = object?;
    json::string(&object[json::member(object, "taskId")?])
}
