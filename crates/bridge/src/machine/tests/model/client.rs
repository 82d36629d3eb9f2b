//! The clients of the model: what they send, and how they come and go.

use super::*;
use crate::jsonrpc::MessageError;

impl Simulation {
    fn action(&mut self) -> Action {
        let level = self.pick(&["debug", "info"]).expect("levels");
        let uri = self.pick(&["a:1", "a:2"]).expect("URIs");
        match self.rng.usize(..14) {
            0..=3 => Action::Act,
            4..=6 => Action::Read,
            7 => Action::List,
            8 => Action::Level(level),
            9..=10 => Action::Subscribe(uri),
            11 => Action::Unsubscribe(uri),
            12 => Action::CreateTask,
            _ => {
                let tasks: Vec<_> = self.tasks.keys().copied().collect();
                self.pick(&tasks).map_or(Action::Read, Action::TaskResult)
            }
        }
    }

    /// A new request, which is not in flight yet.
    fn new_call(&mut self) -> (Nonce, CallModel) {
        let (nonce, action) = (self.nonce(), self.action());
        let token = (!self.once_in(4)).then(|| self.rng.usize(..3).to_string());
        let meta = token
            .as_ref()
            .map(|token| format!(r#""_meta":{{"progressToken":{token}}},"#));
        let params = format!("{{{}{}\"nonce\":{nonce}}}", meta.unwrap_or_default(), action.params());
        let call = CallModel {
            raw: self.pick(&IDS).expect("ids"),
            keyed: true,
            action,
            params,
            token,
            number: 0,
            stream: None,
            exchange: None,
            place: None,
            written: false,
            resends: 0,
            cancelled: false,
            deadline: self.now + REQUEST_TIMEOUT,
        };
        (nonce, call)
    }

    pub(super) fn request(&mut self) {
        let (nonce, mut call) = self.new_call();
        call.keyed = !self.once_in(3);
        self.send(nonce, call);
    }

    /// Repeats a request in flight, perhaps with another spelling of its id.
    pub(super) fn repeat(&mut self) {
        let keyed = self.calls.iter().filter(|(_, call)| call.keyed);
        let nonces: Vec<_> = keyed.map(|(nonce, _)| *nonce).collect();
        let Some(nonce) = self.pick(&nonces) else { return };
        let mut call = self.calls[&nonce].clone();
        let spellings = IDS.into_iter().filter(|raw| id(raw).key() == id(call.raw).key());
        call.raw = self.pick(&spellings.collect::<Vec<_>>()).expect("a spelling");
        self.send(nonce, call);
    }

    /// Sends a request. One in flight with its id is taken over or replaced if its client is gone.
    fn send(&mut self, nonce: Nonce, call: CallModel) {
        let (raw, method) = (call.raw, call.action.method());
        let text = call.text();
        let before = self.by_id(raw).filter(|_| call.keyed);
        let mut room = self.has_room(1);
        let sent = self
            .machine
            .request(self.now, message(&text), id(raw), method, call.keyed);
        if let Some(before) = before {
            let old = &self.calls[&before];
            if self
                .connections
                .iter()
                .any(|connection| Some(connection.reader.stream) == old.stream)
            {
                assert_eq!(sent, Err(RejectReason::IdInFlight));
                return;
            }
            room = self.has_room(0);
            let alone = self.calls.values().filter(|call| call.stream == old.stream).count() == 1;
            if room && before == nonce && alone && !old.cancelled {
                self.taken_over(nonce, raw, sent.expect("room"));
                return;
            }
        }
        if !room {
            // A rejected request replaces nothing.
            assert_eq!(sent, Err(RejectReason::TooManyRequests));
            return;
        }
        if let Some(before) = before {
            self.replace(before);
        }
        let reader = sent.expect("room");
        // A repeated request that is not taken over is a new one.
        let call = CallModel {
            place: None,
            written: false,
            resends: 0,
            cancelled: false,
            deadline: self.now + REQUEST_TIMEOUT,
            ..call
        };
        self.accepted(reader, vec![(nonce, call)]);
    }

    /// An equal request takes over one whose client is gone.
    fn taken_over(&mut self, nonce: Nonce, raw: &'static str, reader: Reader) {
        let exchange = self.exchanges.len();
        let call = self.calls.get_mut(&nonce).expect("a call");
        let (before, links) = (call.exchange.replace(exchange), call.place.into_iter().collect());
        (call.raw, call.stream) = (raw, Some(reader.stream));
        if let Some(before) = before {
            self.exchanges[before].abandoned = true;
        }
        self.open(reader, BTreeMap::from([(raw, Outcome::Open)]), links);
    }

    pub(super) fn batch(&mut self) {
        let count = 1 + self.rng.usize(..3);
        let mut calls: Vec<_> = (0..count).map(|_| self.new_call()).collect();
        let texts: Vec<_> = calls.iter().map(|(_, call)| call.text()).collect();
        let messages = split_batch(format!("[{}]", texts.join(",\n")).as_bytes()).expect("messages");
        let keys: BTreeSet<_> = calls.iter().map(|(_, call)| id(call.raw).key().clone()).collect();
        let conflict = keys.len() < count || calls.iter().any(|(_, call)| self.by_id(call.raw).is_some());
        let room = self.has_room(count);
        let sent = self.machine.batch(self.now, messages);
        if !self.batches {
            assert_eq!(sent, Err(RejectReason::InvalidMessage(MessageError::Batch)));
        } else if conflict {
            assert_eq!(sent, Err(RejectReason::IdInFlight));
        } else if !room {
            assert_eq!(sent, Err(RejectReason::TooManyRequests));
        } else {
            self.accepted(sent.expect("room").expect("a stream"), std::mem::take(&mut calls));
        }
    }

    fn accepted(&mut self, reader: Reader, calls: Vec<(Nonce, CallModel)>) {
        let exchange = self.exchanges.len();
        let requests = calls.iter().map(|(_, call)| (call.raw, Outcome::Open)).collect();
        self.open(reader, requests, BTreeSet::new());
        for (nonce, mut call) in calls {
            call.number = if call.keyed {
                self.machine.calls.by_key(id(call.raw).key()).expect("in flight")
            } else {
                self.machine.calls.numbers().pop().expect("in flight")
            };
            let before = self.numbers.insert(call.number, Some(nonce));
            assert_eq!(before, None, "a number is used twice");
            (call.stream, call.exchange) = (Some(reader.stream), Some(exchange));
            self.calls.insert(nonce, call);
            self.place(nonce);
        }
    }

    fn open(&mut self, reader: Reader, requests: BTreeMap<&'static str, Outcome>, links: BTreeSet<LinkNumber>) {
        self.connections.push(Connection {
            exchange: self.exchanges.len(),
            reader,
            is_streaming: false,
            last: None,
            broken: false,
        });
        self.exchanges.push(Exchange {
            is_listener: requests.is_empty(),
            requests,
            instance: self.instance,
            stream: reader.stream,
            links,
            history: BTreeMap::new(),
            abandoned: false,
            settled_at: None,
        });
    }

    pub(super) fn listen(&mut self) {
        let room = self.has_room(0);
        match self.machine.listen(self.now) {
            Ok(reader) => {
                assert!(room);
                self.open(reader, BTreeMap::new(), BTreeSet::new());
                self.begin_events(self.connections.len() - 1);
            }
            Err(reason) => assert!(!room && reason == RejectReason::TooManyRequests),
        }
    }

    /// Turns a connection into an event stream, unless its request waits for a server.
    pub(super) fn begin_events(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if !connection.is_streaming && !self.machine.is_waiting(connection.reader.stream) {
            connection.is_streaming = true;
            let (id, prime) = self.machine.begin_events(connection.reader).expect("the reader");
            if prime {
                connection.last = Some(id);
            }
        }
    }

    pub(super) fn begin_some_events(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            self.begin_events(at);
        }
    }

    /// Breaks a connection unnoticed.
    pub(super) fn break_one(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            self.connections[at].broken = self.connections[at].is_streaming;
        }
    }

    pub(super) fn disconnect(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            self.disconnect_at(at);
        }
    }

    pub(super) fn disconnect_at(&mut self, at: usize) {
        let connection = self.connections.swap_remove(at);
        self.detach(connection.reader);
        self.remember(connection);
    }

    /// Detaches a reader. Without a stream, a request that waits for a server is given up.
    pub(super) fn detach(&mut self, reader: Reader) {
        self.machine.detach_reader(self.now, reader);
        if !self.machine.streams.exists(reader.stream) {
            self.calls
                .retain(|_, call| call.place.is_some() || call.stream != Some(reader.stream));
        }
        self.check_questions(true);
    }

    /// A client that has lost its connection resumes later, if it has an event id.
    pub(super) fn remember(&mut self, connection: Connection) {
        let Some(last) = connection.last else {
            self.exchanges[connection.exchange].abandoned = true;
            return;
        };
        self.disconnected.push(Disconnected {
            exchange: connection.exchange,
            last,
            disconnected_at: self.now,
        });
    }

    /// Resumes a stream, perhaps at an earlier position than the last.
    pub(super) fn resume_one(&mut self) {
        if self.disconnected.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.disconnected.len());
        let mut client = self.disconnected.swap_remove(at);
        if self.once_in(3) {
            let history = &self.exchanges[client.exchange].history;
            let known: Vec<_> = history.values().map(|(id, _)| id.clone()).collect();
            let known: Vec<_> = known.into_iter().filter(|id| !id.is_final).collect();
            client.last = self.rng.choice(&known).unwrap_or(&client.last).clone();
        }
        self.resume(client);
    }

    pub(super) fn resume(&mut self, client: Disconnected) {
        let room = self.has_room(0);
        let reader = match self.machine.resume(self.now, &client.last) {
            Ok(reader) => reader,
            Err(RejectReason::StreamComplete) => {
                assert!(client.last.is_final);
                return;
            }
            Err(reason) => {
                assert!(!room && reason == RejectReason::TooManyRequests);
                self.disconnected.push(client);
                return;
            }
        };
        assert!(room && !client.last.is_final);
        let (id, prime) = self.machine.begin_events(reader).expect("the reader");
        let exchange = &mut self.exchanges[client.exchange];
        // Two instances number their streams alike.
        let current = (id.epoch, exchange.stream) == (client.last.epoch, client.last.stream);
        let current = current && exchange.instance == self.instance;
        let same = current && reader.stream == client.last.stream;
        if !exchange.is_listener && self.ample_replay {
            let idle_since = exchange.settled_at.map(|at| at.max(client.disconnected_at));
            let expired = idle_since.is_some_and(|since| self.now >= since + REPLAY_TIME);
            let gone = expired || exchange.abandoned || !current;
            assert_eq!(same, !gone, "retained until it expires and no longer");
        }
        let mut last = client.last;
        if !same && exchange.is_listener {
            self.open(reader, BTreeMap::new(), BTreeSet::new());
            self.begin_events(self.connections.len() - 1);
            return;
        }
        if !same {
            // The client gets an error for each of its requests.
            exchange.history.clear();
            (exchange.stream, exchange.instance) = (reader.stream, self.instance);
            exchange.settled_at = Some(self.now);
            exchange.abandoned = false;
            exchange
                .requests
                .values_mut()
                .for_each(|outcome| *outcome = Outcome::Lost);
            for call in self
                .calls
                .values_mut()
                .filter(|call| call.exchange == Some(client.exchange))
            {
                call.exchange = None;
            }
        }
        if prime {
            last = id;
        }
        self.connections.push(Connection {
            exchange: client.exchange,
            reader,
            is_streaming: true,
            last: Some(last),
            broken: false,
        });
    }

    /// Resumes a stream whose old connection still seems open.
    pub(super) fn replace_reader(&mut self) {
        let known = |connection: &Connection| connection.last.as_ref().is_some_and(|last| !last.is_final);
        let at: Vec<_> = (0..self.connections.len())
            .filter(|at| known(&self.connections[*at]))
            .collect();
        let Some(at) = self.pick(&at).filter(|_| self.has_room(0)) else {
            return;
        };
        let old = self.connections.swap_remove(at);
        let (stream, exchange) = (old.reader.stream, old.exchange);
        let last = old.last.expect("an event");
        let disconnected_at = self.now;
        self.resume(Disconnected {
            exchange,
            last,
            disconnected_at,
        });
        let context = Context::from_waker(Waker::noop());
        if self.connections.last().is_some_and(|new| new.reader.stream == stream) {
            assert_eq!(self.machine.poll_event(old.reader, &context), Poll::Ready(None));
        }
        self.detach(old.reader);
    }

    pub(super) fn cancel(&mut self) {
        let raw = self.pick(&IDS).expect("ids");
        let method = "notifications/cancelled";
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{raw}}}}}"#);
        let keyed = self.rng.bool();
        self.machine
            .notify(self.now, message(&text), method, keyed)
            .expect("room");
        let nonce = match *self.all_with_id(raw) {
            [nonce] if !keyed => Some(nonce),
            _ if !keyed => None,
            _ => self.by_id(raw),
        };
        let Some(nonce) = nonce else { return };
        let grace = self.now + CANCEL_GRACE;
        let call = self.calls.get_mut(&nonce).expect("a call");
        let Some(link) = call.place else {
            self.finish(nonce, Outcome::Error);
            return;
        };
        call.cancelled = true;
        call.deadline = call.deadline.min(grace);
        let number = call.number;
        self.expect_on(link, |link| link.cancellations.push(number));
    }
}

impl CallModel {
    fn text(&self) -> String {
        let (raw, method, params) = (self.raw, self.action.method(), &self.params);
        format!(r#"{{"jsonrpc":"2.0","id":{raw},"method":"{method}","params":{params}}}"#)
    }
}
