//! One `subscriptions/listen` for all that the machine wants to know of: the changes of lists that
//! the server offers, and the resources that are subscribed.
//!
//! When that set changes, a new request is sent, and the one before is cancelled as soon as the
//! server has acknowledged the new one. Until then the messages of the one before count, after it
//! those of the new one, so that none is lost and none comes twice. A subscription is granted to
//! the machine by that acknowledgement.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::{Duration, Instant};

use super::{META_SUBSCRIPTION, METHOD_NOT_FOUND, ModernServer, SUBSCRIPTIONS, SentRequest};
use crate::{
    dropped::DropReason,
    jsonrpc::{
        self, Envelope, Id, json,
        object::{self, Object},
    },
};

/// The kinds of lists: in the capabilities, in the filter, and in the notification.
const LISTS: [(&str, &str, &str); 3] = [
    ("tools", "toolsListChanged", "notifications/tools/list_changed"),
    ("prompts", "promptsListChanged", "notifications/prompts/list_changed"),
    (
        "resources",
        "resourcesListChanged",
        "notifications/resources/list_changed",
    ),
];
/// The time that a server has to acknowledge.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time before the request is repeated that the server has ended; it doubles.
const MIN_REPEAT_DELAY: Duration = Duration::from_secs(1);
const MAX_REPEAT_DELAY: Duration = Duration::from_secs(300);
/// The ended requests that are remembered, so that late messages of theirs are no fault.
const MAX_CLOSED: usize = 16;
/// The filters that are remembered because they failed.
const MAX_REJECTED: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// The server announces changes of these lists.
    offered: [bool; LISTS.len()],
    /// The server accepts subscriptions of resources.
    has_resources: bool,
    /// The client has confirmed the handshake.
    started: bool,
    uris: BTreeSet<String>,
    /// The requests of the machine for resources that the server has not acknowledged.
    waiting: Vec<(u64, String)>,
    /// The request whose messages count.
    active: Option<Listen>,
    /// The request that is not acknowledged.
    opening: Option<Listen>,
    closed: VecDeque<u64>,
    /// The filters that the server has refused or ended lately, newest first.
    rejected: VecDeque<Filter>,
    failures: u32,
    deadline: Option<Instant>,
}

/// A `subscriptions/listen` at the server.
#[derive(Debug)]
struct Listen {
    id: u64,
    requested: Filter,
    accepted: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    lists: [bool; LISTS.len()],
    uris: BTreeSet<String>,
}

impl ModernServer {
    /// The client has confirmed the handshake.
    pub(super) fn start_subscriptions(&mut self, now: Instant) {
        self.subscriptions.started = true;
        self.update_listen(now);
    }

    pub(super) fn subscribe(&mut self, now: Instant, number: u64, message: &Envelope) {
        let subscriptions = &mut self.subscriptions;
        let Some(uri) = message.param("uri").and_then(json::string) else {
            return self.reply_error(&number.to_string(), jsonrpc::INVALID_PARAMS, "`uri` is missing");
        };
        if !subscriptions.has_resources {
            return self.reply_error(&number.to_string(), METHOD_NOT_FOUND, "the server has no subscriptions");
        }
        if subscriptions
            .active
            .as_ref()
            .is_some_and(|listen| listen.accepted.contains(&uri))
        {
            subscriptions.uris.insert(uri);
            self.reply(number, "{}");
        } else if subscriptions.uris.len() + subscriptions.waiting.len() < self.config.max_subscriptions {
            subscriptions.waiting.push((number, uri));
        } else {
            self.reply_error(&number.to_string(), jsonrpc::UNAVAILABLE, "too many subscriptions");
        }
        self.update_listen(now);
    }

    pub(super) fn unsubscribe(&mut self, now: Instant, number: u64, message: &Envelope) {
        let Some(uri) = message.param("uri").and_then(json::string) else {
            return self.reply_error(&number.to_string(), jsonrpc::INVALID_PARAMS, "`uri` is missing");
        };
        self.subscriptions.uris.remove(&uri);
        self.reply(number, "{}");
        self.update_listen(now);
    }

    /// The server has accepted a `subscriptions/listen`.
    pub(super) fn acknowledged(&mut self, now: Instant, message: &Envelope) {
        let id = subscription(message);
        let Some(mut listen) = self.subscriptions.opening.take_if(|opening| Some(opening.id) == id) else {
            self.count_unmatched(id);
            return;
        };
        self.clear_deadline();
        let filter = message.param("notifications");
        let uris = filter.and_then(|filter| Some(&filter[json::member(filter, "resourceSubscriptions")?]));
        let uris = uris.and_then(object::elements).unwrap_or_default();
        listen.accepted = uris.into_iter().filter_map(json::string).collect();
        for (number, uri) in self.subscriptions.take_waiting(&listen.requested) {
            if listen.accepted.contains(&uri) {
                self.subscriptions.uris.insert(uri);
                self.reply(number, "{}");
            } else {
                let why = "the MCP server does not accept a subscription of this resource";
                self.reply_error(&number.to_string(), jsonrpc::INVALID_PARAMS, why);
            }
        }
        self.subscriptions.failures = 0;
        self.subscriptions.rejected.clear();
        if let Some(before) = self.subscriptions.active.replace(listen) {
            self.close_listen(before.id);
        }
        self.update_listen(now);
    }

    /// The server has ended a `subscriptions/listen`, with this error, if any.
    pub(super) fn listen_ended(&mut self, now: Instant, id: u64, error: Option<&str>) {
        self.subscriptions.remember_closed(id);
        let subscriptions = &mut self.subscriptions;
        let is = |listen: &mut Listen| listen.id == id;
        let Some(listen) = subscriptions
            .opening
            .take_if(is)
            .or_else(|| subscriptions.active.take_if(is))
        else {
            return;
        };
        for (number, _) in self.subscriptions.take_waiting(&listen.requested) {
            match error {
                Some(error) => {
                    let error = super::results::error(&number.to_string(), "resources/subscribe", error);
                    self.replies.push(error);
                }
                None => self.reply_error(
                    &number.to_string(),
                    jsonrpc::UNAVAILABLE,
                    "the MCP server has ended the subscription",
                ),
            }
        }
        if self.subscriptions.opening.is_some() {
            // The next one is on its way.
            return;
        }
        self.subscriptions.rejected.truncate(MAX_REJECTED - 1);
        self.subscriptions.rejected.push_front(listen.requested);
        self.clear_deadline();
        // A server that refuses it would do so again.
        if error.is_none() {
            let factor = 1_u32.checked_shl(self.subscriptions.failures).unwrap_or(u32::MAX);
            self.subscriptions.failures = (self.subscriptions.failures + 1).min(16);
            let delay = MIN_REPEAT_DELAY.saturating_mul(factor).min(MAX_REPEAT_DELAY);
            self.set_subscriptions_deadline(now + delay);
        }
        self.update_listen(now);
    }

    /// The server ends a `subscriptions/listen` by a cancellation.
    pub(super) fn on_server_cancel(&mut self, now: Instant, message: &Envelope) {
        let id = message.param_id("requestId").and_then(|id| id.number());
        match id.filter(|id| self.sent.get(id) == Some(&SentRequest::Listen)) {
            Some(id) => {
                self.sent.remove(&id);
                self.listen_ended(now, id, None);
            }
            None => self.count_unmatched(id),
        }
    }

    /// The server reports a change.
    pub(super) fn on_change(&mut self, method: &str, message: &Envelope) {
        let id = subscription(message);
        let active = self.subscriptions.active.as_ref();
        let wanted = active.filter(|listen| Some(listen.id) == id).is_some_and(|listen| {
            let list = LISTS.iter().position(|(.., changed)| *changed == method);
            list.map_or(!listen.requested.uris.is_empty(), |list| listen.requested.lists[list])
        });
        if !wanted {
            return self.count_unmatched(id);
        }
        let mut params = Object::parse(message.params().unwrap_or("{}")).unwrap_or_default();
        let before = params.take("_meta").unwrap_or_default();
        let mut meta = Object::parse(&before).unwrap_or_default();
        meta.take(META_SUBSCRIPTION);
        if !meta.is_empty() {
            params.set("_meta", meta.to_string());
        }
        let method = json::quote(method);
        let params = if params.is_empty() {
            String::new()
        } else {
            format!(r#","params":{params}"#)
        };
        self.replies
            .push(format!(r#"{{"jsonrpc":"2.0","method":{method}{params}}}"#).into());
    }

    pub(super) fn subscriptions_due(&mut self, now: Instant) {
        self.subscriptions.deadline = None;
        if let Some(opening) = self.subscriptions.opening.as_ref().map(|listen| listen.id) {
            self.close_listen(opening);
            self.listen_ended(now, opening, None);
        } else {
            self.subscriptions.rejected.clear();
            self.update_listen(now);
        }
    }

    /// Opens a new request if the set has changed.
    fn update_listen(&mut self, now: Instant) {
        let subscriptions = &self.subscriptions;
        let wanted = subscriptions.wanted();
        if subscriptions.opening.is_some() || subscriptions.rejected.contains(&wanted) {
            return;
        }
        if wanted == Filter::default() {
            if let Some(active) = self.subscriptions.active.take() {
                self.close_listen(active.id);
            }
            return;
        }
        if subscriptions
            .active
            .as_ref()
            .is_some_and(|active| active.requested == wanted)
        {
            return;
        }
        let id = self.next_id();
        let params = format!(r#"{{"notifications":{}}}"#, wanted.to_json());
        let line = self
            .request(id, "subscriptions/listen", &params, &[])
            .unwrap_or_default();
        self.subscriptions.opening = Some(Listen {
            id,
            requested: wanted,
            accepted: BTreeSet::new(),
        });
        if self.send_request(id, SentRequest::Listen, line) {
            self.set_subscriptions_deadline(now + ACKNOWLEDGE_TIMEOUT);
        } else {
            self.listen_ended(now, id, None);
        }
    }

    /// Cancels a request at the server.
    fn close_listen(&mut self, id: u64) {
        self.sent.remove(&id);
        self.subscriptions.remember_closed(id);
        self.send(jsonrpc::cancelled(&id.to_string(), "the subscriptions have changed"));
    }

    fn set_subscriptions_deadline(&mut self, at: Instant) {
        self.clear_deadline();
        self.subscriptions.deadline = Some(at);
        self.timers.insert((at, SUBSCRIPTIONS));
    }

    fn clear_deadline(&mut self) {
        if let Some(at) = self.subscriptions.deadline.take() {
            self.timers.remove(&(at, SUBSCRIPTIONS));
        }
    }

    /// Counts a message about subscriptions that matches none, unless it is only late.
    fn count_unmatched(&self, id: Option<u64>) {
        if !id.is_some_and(|id| self.subscriptions.has_closed(id)) {
            self.count(DropReason::UnmatchedSubscription);
        }
    }
}

impl Subscriptions {
    /// Reads what a server offers.
    pub(super) fn offered_by(&mut self, capabilities: &Object<'_>) {
        let is_true = |name: &str, flag: &str| {
            let capability = capabilities.get(name).unwrap_or("{}");
            json::member(capability, flag).is_some_and(|at| &capability[at] == "true")
        };
        self.offered = LISTS.map(|(name, ..)| is_true(name, "listChanged"));
        self.has_resources = is_true("resources", "subscribe");
    }

    /// True if a request of this id was ended lately.
    pub(super) fn has_closed(&self, id: u64) -> bool {
        self.closed.contains(&id)
    }

    /// Forgets a request of the machine.
    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
    }

    fn wanted(&self) -> Filter {
        let uris = self.waiting.iter().map(|(_, uri)| uri).chain(&self.uris);
        Filter {
            lists: self.offered.map(|offered| offered && self.started),
            uris: uris.cloned().collect(),
        }
    }

    /// Takes the requests that a filter includes.
    fn take_waiting(&mut self, filter: &Filter) -> Vec<(u64, String)> {
        self.waiting
            .extract_if(.., |(_, uri)| filter.uris.contains(uri))
            .collect()
    }

    fn remember_closed(&mut self, id: u64) {
        if !self.has_closed(id) {
            self.closed.truncate(MAX_CLOSED - 1);
            self.closed.push_front(id);
        }
    }
}

impl Filter {
    fn to_json(&self) -> String {
        let mut filter = Object::default();
        for (at, (_, name, _)) in LISTS.into_iter().enumerate() {
            if self.lists[at] {
                filter.set(name, "true");
            }
        }
        if !self.uris.is_empty() {
            let uris: Vec<String> = self.uris.iter().map(|uri| json::quote(uri)).collect();
            filter.set("resourceSubscriptions", format!("[{}]", uris.join(",")));
        }
        filter.to_string()
    }
}

/// The `subscriptions/listen` that a notification belongs to.
fn subscription(message: &Envelope) -> Option<u64> {
    let meta = message.param("_meta")?;
    Id::parse(&meta[json::member(meta, META_SUBSCRIPTION)?])?.number()
}
