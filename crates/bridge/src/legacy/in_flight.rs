//! The client requests in flight toward the server.
//!
//! Toward the server, each request has a number that the bridge assigns and never reuses, so that
//! requests of two exchanges stay apart whatever their ids. A request leaves the table with the
//! server's response, by its timeout, or at the end. It stays when its client disconnects, because
//! a disconnect does not cancel (MCP 2025-11-25, "Sending Messages to the Server", point 6).
//!
//! Invariant: `by_key` and `by_token` refer to existing requests.

use std::collections::HashMap;

use super::client_settings::ClientSetting;
use crate::{
    jsonrpc::{Id, RequestKey},
    streams::StreamId,
};

#[derive(Debug)]
pub(super) struct InFlightRequest {
    pub(super) id: Id,
    /// The stream for the response, which may be gone by then.
    pub(super) stream: StreamId,
    pub(super) token: Option<RequestKey>,
    /// The number of its line in the outbox.
    pub(super) line: u64,
    pub(super) cancelled: bool,
    /// The setting to record if the request succeeds.
    pub(super) setting: Option<ClientSetting>,
}

/// The requests in flight, by the number that the server knows.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    requests: HashMap<u64, InFlightRequest>,
    by_key: HashMap<RequestKey, u64>,
    by_token: HashMap<RequestKey, u64>,
    last: u64,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn contains(&self, key: &RequestKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut InFlightRequest> {
        self.requests.get_mut(&number)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// Adds a request, whose id must not be in flight, and assigns its number.
    pub(super) fn insert(&mut self, request: InFlightRequest) -> u64 {
        self.last += 1;
        let number = self.last;
        self.by_key.insert(request.id.key().clone(), number);
        // MCP forbids two requests with one token; the newer one gets the progress.
        self.by_token.extend(request.token.clone().map(|token| (token, number)));
        self.requests.insert(number, request);
        number
    }

    pub(super) fn take(&mut self, number: u64) -> Option<InFlightRequest> {
        let request = self.requests.remove(&number)?;
        self.by_key.remove(request.id.key());
        if let Some(token) = &request.token
            && self.by_token.get(token) == Some(&number)
        {
            self.by_token.remove(token);
        }
        Some(request)
    }

    /// Removes all requests, oldest first.
    pub(super) fn take_all(&mut self) -> Vec<InFlightRequest> {
        let mut requests: Vec<_> = std::mem::take(&mut self.requests).into_iter().collect();
        requests.sort_unstable_by_key(|(number, _)| *number);
        *self = Self {
            last: self.last,
            ..Self::default()
        };
        requests.into_iter().map(|(_, request)| request).collect()
    }

    /// The request with this client id, and its number.
    pub(super) fn by_key(&mut self, key: &RequestKey) -> Option<(u64, &mut InFlightRequest)> {
        let number = *self.by_key.get(key)?;
        self.requests.get_mut(&number).map(|request| (number, request))
    }

    /// The stream of the request with this progress token.
    pub(super) fn stream_of_token(&self, token: &RequestKey) -> Option<StreamId> {
        Some(self.requests.get(self.by_token.get(token)?)?.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        streams::{RequestIds, Streams},
    };

    fn id(raw: &str) -> Id {
        Id::parse(raw).expect("an id")
    }

    fn request(raw: &str, stream: StreamId, token: Option<&str>) -> InFlightRequest {
        let token = token.map(|token| id(token).key().clone());
        InFlightRequest {
            id: id(raw),
            stream,
            token,
            line: 0,
            cancelled: false,
            setting: None,
        }
    }

    fn three_streams() -> [StreamId; 3] {
        let mut streams = Streams::new(0, Config::default());
        [(); 3].map(|()| streams.open_response_only(RequestIds::default(), 1).stream)
    }

    #[test]
    fn numbers_are_never_reused() {
        let [stream, ..] = three_streams();
        let mut in_flight = InFlight::default();
        assert_eq!(in_flight.insert(request("1", stream, None)), 1);
        assert!(in_flight.take(1).is_some() && in_flight.take(1).is_none());
        assert_eq!(in_flight.insert(request("1", stream, None)), 2);
        assert_eq!(in_flight.take_all().len(), 1);
        assert_eq!(in_flight.next_number(), 3);
        assert_eq!(in_flight.len(), 0);
    }

    #[test]
    fn a_shared_token_belongs_to_the_newer_request_until_it_completes() {
        let [one, two, _] = three_streams();
        let mut in_flight = InFlight::default();
        let first = in_flight.insert(request("1", one, Some("7")));
        let second = in_flight.insert(request("2", two, Some("7")));
        let token = id("7").key().clone();
        assert_eq!(in_flight.stream_of_token(&token), Some(two));
        in_flight.take(first);
        assert_eq!(in_flight.stream_of_token(&token), Some(two));
        in_flight.take(second);
        assert_eq!(in_flight.stream_of_token(&token), None);
    }
}
