//! Requests of the server to the client: sampling, elicitation, roots, ping.
//!
//! A server request is open until the client answers it, its deadline passes, or the server cancels
//! it. An answer to any other request is dropped, so no server request is answered twice. A request
//! that no client can read gets an error, so that the server does not hang.

use tokio::time::Instant;

use super::{StateMachine, server_messages::CLIENT_NOT_READING, timers::Timer};
use crate::{
    dropped::DropReason,
    jsonrpc::{self, Envelope, Id, RequestKey},
    streams::{Routed, StreamMessage, StreamMessageKind},
};

impl StateMachine {
    pub(super) fn on_request(&mut self, now: Instant, id: Id, message: Envelope) {
        let key = id.key().clone();
        if self.server_requests.contains_key(&key) {
            self.count(DropReason::ServerRequestRejected);
            return;
        }
        self.server_requests.insert(key.clone(), id);
        let routed = if self.server_requests.len() > self.config.max_server_requests {
            Routed::Rejected
        } else {
            self.streams.route(StreamMessage {
                kind: StreamMessageKind::ServerRequest(key.clone()),
                line: message.into_line(),
            })
        };
        self.server_request_routed(now, &key, &routed);
    }

    /// Sets the deadline of an open server request, or rejects the request.
    pub(super) fn server_request_routed(&mut self, now: Instant, key: &RequestKey, routed: &Routed) {
        if !self.server_requests.contains_key(key) {
            return;
        }
        let time = match routed {
            Routed::Placed => self.config.request_timeout,
            Routed::Waiting => self.config.listener_timeout,
            Routed::Rejected => {
                self.reject_server_request(key, jsonrpc::UNAVAILABLE, CLIENT_NOT_READING);
                return;
            }
        };
        self.timers.set(Timer::ServerRequest(key.clone()), now + time);
    }

    pub(super) fn server_requests_placed(&mut self, now: Instant, keys: &[RequestKey]) {
        for key in keys {
            self.server_request_routed(now, key, &Routed::Placed);
        }
    }

    /// Closes a server request. Returns its id if it was open.
    pub(super) fn take_server_request(&mut self, key: &RequestKey) -> Option<Id> {
        self.timers.cancel(&Timer::ServerRequest(key.clone()));
        self.server_requests.remove(key)
    }

    pub(super) fn reject_server_request(&mut self, key: &RequestKey, code: i32, why: &str) {
        if let Some(id) = self.take_server_request(key) {
            self.streams.withdraw(key);
            self.count(DropReason::ServerRequestRejected);
            self.send_own(jsonrpc::error(id.raw(), code, why));
        }
    }
}
