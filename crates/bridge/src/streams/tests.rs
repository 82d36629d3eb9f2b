//! Streams on their own: routing, replay and limits.

use super::*;
use crate::{config::QueueLimits, jsonrpc::Id};

impl Streams {
    /// The number of retained streams.
    pub(crate) fn count_retained(&self) -> usize {
        self.all.keys().filter(|id| self.is_retained(**id)).count()
    }

    /// The number of messages in the replay buffer, and their bytes.
    pub(crate) fn replay_usage(&self) -> (usize, usize) {
        self.replay_buffer.usage()
    }
}

const AMPLE: QueueLimits = QueueLimits {
    messages: 99,
    bytes: 9999,
};

fn streams_with(backlog: QueueLimits, replay_buffer: QueueLimits) -> Streams {
    let config = Config {
        backlog,
        replay_buffer,
        max_listeners: 2,
        max_unflushed: 30,
        ..Config::default()
    };
    Streams::new(7, config)
}

fn streams(messages: usize, bytes: usize) -> Streams {
    streams_with(QueueLimits { messages, bytes }, AMPLE)
}

fn with_replay_buffer(messages: usize, bytes: usize) -> Streams {
    streams_with(AMPLE, QueueLimits { messages, bytes })
}

fn message(kind: StreamMessageKind, line: &'static str) -> StreamMessage {
    let line = line.into();
    StreamMessage { kind, link: 1, line }
}

fn notification(line: &'static str) -> StreamMessage {
    message(StreamMessageKind::Notification, line)
}

fn question(number: u64, line: &'static str) -> StreamMessage {
    message(StreamMessageKind::Question(number), line)
}

fn placed(reader: Reader) -> Routed {
    Routed::Placed(reader.stream)
}

/// An exchange on link 1.
fn exchange(streams: &mut Streams) -> Reader {
    let reader = streams.open_exchange(RequestIds::default(), 1);
    assert_eq!(streams.assign(reader.stream, 1), [0; 0]);
    reader
}

fn poll(streams: &mut Streams, reader: Reader) -> Poll<Option<StreamEvent>> {
    streams.poll_event(reader, &Context::from_waker(Waker::noop()))
}

fn response_mode(streams: &mut Streams, reader: Reader) -> Poll<ResponseMode> {
    streams.poll_response_mode(reader, &Context::from_waker(Waker::noop()))
}

/// Reads all pending messages of a stream; the flag is true if it has ended.
fn read(streams: &mut Streams, reader: Reader) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    loop {
        match poll(streams, reader) {
            Poll::Ready(Some(event)) => {
                let text = String::from_utf8(event.line.into());
                lines.push(text.expect("text"));
            }
            Poll::Ready(None) => return (lines, true),
            Poll::Pending => return (lines, false),
        }
    }
}

fn event(streams: &mut Streams, reader: Reader) -> (EventId, String) {
    let Poll::Ready(Some(event)) = poll(streams, reader) else {
        panic!("no event")
    };
    (
        event.id.expect("resumable"),
        String::from_utf8(event.line.into()).expect("text"),
    )
}

/// Checks that no stream, message or byte is left.
fn check_empty(streams: &Streams) {
    assert_eq!(
        (streams.bytes, streams.replay_usage(), streams.attached),
        (0, (0, 0), 0)
    );
    assert!(streams.all.is_empty());
}

#[test]
fn the_newest_listener_comes_before_the_newest_exchange() {
    let mut streams = streams(9, 99);
    let first = exchange(&mut streams);
    let second = exchange(&mut streams);
    assert_eq!(streams.route(notification("a")), placed(second));
    let (listener, _) = streams.open_listener();
    let (newer, _) = streams.open_listener();
    streams.route(notification("b"));
    assert_eq!(streams.detach(newer), [notification("b")]);
    streams.route(notification("c"));
    assert_eq!(read(&mut streams, first), (vec![], false));
    assert_eq!(read(&mut streams, second), (vec!["a".into()], false));
    assert_eq!(read(&mut streams, listener), (vec!["c".into()], false));
}

#[test]
fn messages_without_stream_wait_for_the_next_one() {
    let mut streams = streams(9, 99);
    assert_eq!(streams.route(notification("a")), Routed::Waiting);
    assert_eq!(streams.route(question(1, "1")), Routed::Waiting);
    let other = StreamMessage {
        link: 2,
        ..notification("b")
    };
    assert_eq!(streams.route(other), Routed::Waiting);
    let responses_only = streams.open_response_only(RequestIds::default(), 1);
    assert_eq!(streams.assign(responses_only.stream, 1), [0; 0]);
    let exchange = streams.open_exchange(RequestIds::default(), 1);
    assert_eq!(streams.assign(exchange.stream, 1), [1]);
    // A listener gets the messages of all links.
    let (listener, placed) = streams.open_listener();
    assert_eq!(placed, [0; 0]);
    assert_eq!(read(&mut streams, responses_only), (vec![], false));
    assert_eq!(read(&mut streams, exchange), (vec!["a".into(), "1".into()], false));
    assert_eq!(read(&mut streams, listener), (vec!["b".into()], false));
}

#[test]
fn no_message_goes_to_an_exchange_on_another_link() {
    let mut streams = streams(9, 99);
    let first = exchange(&mut streams);
    let second = streams.open_exchange(RequestIds::default(), 1);
    streams.assign(second.stream, 2);
    let unassigned = streams.open_exchange(RequestIds::default(), 1);
    assert_eq!(streams.route(notification("a")), placed(first));
    assert_eq!(
        [first, second, unassigned].map(|reader| read(&mut streams, reader).0.len()),
        [1, 0, 0]
    );
}

#[test]
fn a_refusal_ends_a_stream_that_has_not_begun() {
    let mut streams = streams(9, 99);
    let [waiting, begun] = [(); 2].map(|()| exchange(&mut streams));
    streams.begin_events(begun, true);
    let why: Refusal = std::sync::Arc::new(std::fmt::Error);
    assert!(streams.refuse(waiting.stream, &why) && !streams.refuse(begun.stream, &why));
    let mode = response_mode(&mut streams, waiting);
    assert!(matches!(mode, Poll::Ready(ResponseMode::Unserved(_))));
    assert_eq!(read(&mut streams, begun), (vec![], false));
}

#[test]
fn a_response_ends_its_stream() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    assert!(streams.notify(reader.stream, "p".into()));
    assert!(streams.respond(reader.stream, "r".into()));
    assert!(!streams.notify(reader.stream, "late".into()));
    assert!(!streams.respond(reader.stream, "again".into()));
    assert_eq!(streams.route(notification("x")), Routed::Waiting);
    assert!(matches!(
        response_mode(&mut streams, reader),
        Poll::Ready(ResponseMode::Sse)
    ));
    assert_eq!(read(&mut streams, reader), (vec!["p".into(), "r".into()], true));
    streams.detach(reader);
    assert!(!streams.respond(reader.stream, "r".into()));
}

#[test]
fn responses_without_other_messages_are_taken_as_json() {
    let mut streams = streams(9, 99);
    let reader = streams.open_exchange(RequestIds::default(), 2);
    assert!(response_mode(&mut streams, reader).is_pending());
    assert!(streams.respond(reader.stream, "a".into()));
    assert!(response_mode(&mut streams, reader).is_pending());
    assert!(streams.respond(reader.stream, "b".into()));
    let Poll::Ready(ResponseMode::Json(lines)) = response_mode(&mut streams, reader) else {
        panic!("all responses are there")
    };
    assert_eq!(lines, ["a", "b"]);
    assert_eq!(read(&mut streams, reader), (vec![], true));
    assert_eq!(streams.detach(reader), []);
    check_empty(&streams);
}

#[test]
fn a_slow_reader_loses_only_its_oldest_notifications() {
    let mut streams = streams(3, 99);
    let reader = exchange(&mut streams);
    for item in [
        notification("a"),
        question(1, "1"),
        notification("b"),
        notification("c"),
        notification("d"),
    ] {
        assert_eq!(streams.route(item), placed(reader));
    }
    assert!(streams.respond(reader.stream, "r".into()));
    assert_eq!(
        read(&mut streams, reader),
        (vec!["1".into(), "c".into(), "d".into(), "r".into()], true)
    );
    assert_eq!(streams.take_dropped(), 2);
    assert_eq!(streams.bytes, 0);
}

#[test]
fn a_queue_full_of_server_requests_rejects_the_next() {
    let mut streams = streams(2, 99);
    let (reader, _) = streams.open_listener();
    assert_eq!(streams.route(question(1, "1")), placed(reader));
    assert_eq!(streams.route(question(2, "2")), placed(reader));
    assert_eq!(streams.route(question(3, "3")), Routed::Rejected);
    assert_eq!(streams.route(notification("a")), Routed::Rejected);
    assert_eq!(streams.take_dropped(), 1);
    assert!(streams.withdraw(1) && !streams.withdraw(3));
    assert_eq!(read(&mut streams, reader), (vec!["2".into()], false));
}

#[test]
fn bytes_are_limited_over_all_streams() {
    let mut streams = streams(99, 10);
    let one = exchange(&mut streams);
    let two = exchange(&mut streams);
    streams.notify(one.stream, "123456".into());
    streams.notify(two.stream, "789".into());
    streams.notify(two.stream, "xyz".into());
    assert_eq!(streams.take_dropped(), 1);
    assert_eq!(read(&mut streams, one).0, ["123456"]);
    assert_eq!(read(&mut streams, two).0, ["xyz"]);
    streams.notify(two.stream, "one message of any size".into());
    // What the client has not read waits in the replay buffer.
    assert_eq!(streams.detach(two), []);
    assert_eq!((streams.bytes, streams.replay_usage().0), (0, 3));
}

#[test]
fn a_listener_beyond_the_limit_ends_the_oldest() {
    let mut streams = streams(9, 99);
    let readers = [(); 3].map(|()| streams.open_listener().0);
    assert_eq!(readers.map(|reader| read(&mut streams, reader).1), [true, false, false]);
    streams.end_listeners();
    assert_eq!(readers.map(|reader| read(&mut streams, reader).1), [true, true, true]);
}

#[test]
fn a_listener_ended_at_the_limit_can_be_resumed() {
    let mut streams = streams(9, 99);
    let (oldest, _) = streams.open_listener();
    streams.begin_events(oldest, true);
    streams.route(notification("a"));
    let (id, _) = event(&mut streams, oldest);
    let others = [(); 2].map(|()| streams.open_listener().0);
    assert_eq!(read(&mut streams, oldest), (vec![], true));
    streams.detach(oldest);
    let (again, _) = streams.resume(&id).expect("retained");
    assert_eq!(read(&mut streams, again), (vec![], false));
    assert_eq!(others.map(|reader| read(&mut streams, reader).1), [true, false]);
}

#[test]
fn an_unprimed_stream_is_removed_with_its_reader() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let id = streams.begin_events(reader, false).expect("a reader");
    streams.notify(reader.stream, "p".into());
    streams.detach(reader);
    assert!(streams.resume(&id).is_none());
    assert!(!streams.respond(reader.stream, "r".into()));
    check_empty(&streams);
}

#[test]
fn the_first_event_primes_a_stream() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    streams.begin_events(reader, false).expect("a reader");
    streams.notify(reader.stream, "p".into());
    let (id, _) = event(&mut streams, reader);
    streams.detach(reader);
    assert!(streams.respond(reader.stream, "r".into()));
    let (again, _) = streams.resume(&id).expect("retained");
    let (last, line) = event(&mut streams, again);
    assert!(last.is_final && !id.is_final && line == "r");
}

#[test]
fn a_resumed_stream_replays_from_the_given_event() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let start = streams.begin_events(reader, true).expect("a reader");
    for line in ["1", "2", "3"] {
        streams.notify(reader.stream, line.into());
    }
    let (first, _) = event(&mut streams, reader);
    let (second, _) = event(&mut streams, reader);
    assert_eq!(streams.detach(reader), []);
    // Messages without a reader gather.
    assert!(streams.notify(reader.stream, "4".into()) && streams.respond(reader.stream, "r".into()));
    assert!(streams.is_retained(reader.stream));
    for (from, expected) in [
        (&second, &["3", "4", "r"][..]),
        (&start, &["1", "2", "3", "4", "r"]),
        (&first, &["2", "3", "4", "r"]),
    ] {
        let (again, _) = streams.resume(from).expect("retained");
        assert!(!streams.is_retained(reader.stream));
        assert_eq!(streams.begin_events(again, true).as_ref(), Some(from));
        let (lines, ended) = read(&mut streams, again);
        assert_eq!(
            (lines.as_slice(), ended),
            (&expected.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..], true)
        );
        assert_eq!(streams.detach(again), []);
    }
    assert_eq!(streams.replay_usage(), (5, 5));
    streams.expire(reader.stream);
    assert!(streams.resume(&start).is_none());
    assert_eq!(streams.take_removed(), [reader.stream]);
    check_empty(&streams);
}

#[test]
fn a_new_reader_replaces_the_old_one() {
    let mut streams = streams(9, 99);
    let (old, _) = streams.open_listener();
    let start = streams.begin_events(old, true).expect("a reader");
    streams.route(notification("a"));
    event(&mut streams, old);
    let (new, _) = streams.resume(&start).expect("retained");
    streams.route(notification("b"));
    assert_eq!(read(&mut streams, old), (vec![], true));
    assert_eq!(streams.begin_events(old, true), None);
    assert_eq!(streams.detach(old), []);
    assert_eq!(read(&mut streams, new), (vec!["a".into(), "b".into()], false));
    assert_eq!(streams.count_attached(), 1);
}

#[test]
fn unread_messages_of_other_scope_are_routed_again() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let start = streams.begin_events(reader, true).expect("a reader");
    streams.notify(reader.stream, "p".into());
    streams.route(notification("a"));
    streams.route(question(1, "1"));
    assert_eq!(streams.detach(reader), [notification("a"), question(1, "1")]);
    assert_eq!(streams.route(question(1, "1")), Routed::Waiting);
    let (again, attached_requests) = streams.resume(&start).expect("retained");
    assert_eq!(attached_requests, [1]);
    assert_eq!(read(&mut streams, again), (vec!["p".into(), "1".into()], false));
}

#[test]
fn a_resumed_listener_replays_missed_messages() {
    let mut streams = streams(9, 99);
    let (reader, _) = streams.open_listener();
    let start = streams.begin_events(reader, true).expect("a reader");
    streams.route(notification("a"));
    event(&mut streams, reader);
    streams.detach(reader);
    // Without a reader this waits, and it goes to one stream only.
    assert_eq!(streams.route(notification("b")), Routed::Waiting);
    let (again, _) = streams.resume(&start).expect("retained");
    assert_eq!(read(&mut streams, again), (vec!["a".into(), "b".into()], false));
    assert_eq!(streams.route(notification("c")), placed(again));
}

#[test]
fn an_empty_listener_is_not_retained() {
    let mut streams = streams(9, 99);
    let (reader, _) = streams.open_listener();
    let start = streams.begin_events(reader, true).expect("a reader");
    streams.detach(reader);
    assert!(streams.resume(&start).is_none());
    check_empty(&streams);
}

#[test]
fn the_replay_buffer_evicts_the_oldest_messages() {
    let mut streams = with_replay_buffer(2, 99);
    let reader = exchange(&mut streams);
    let start = streams.begin_events(reader, true).expect("a reader");
    for line in ["1", "2", "3"] {
        streams.notify(reader.stream, line.into());
    }
    assert_eq!(read(&mut streams, reader).0.len(), 3);
    assert_eq!(streams.replay_usage(), (2, 2));
    let (again, _) = streams.resume(&start).expect("retained");
    assert_eq!(read(&mut streams, again), (vec!["2".into(), "3".into()], false));
}

#[test]
fn evicting_a_response_removes_its_stream() {
    let mut streams = with_replay_buffer(9, 10);
    let [one, two] = [(); 2].map(|()| exchange(&mut streams));
    let starts = [one, two].map(|reader| streams.begin_events(reader, true).expect("a reader"));
    for reader in [one, two] {
        streams.detach(reader);
    }
    assert!(streams.respond(one.stream, "123456".into()));
    assert!(streams.respond(two.stream, "an answer of any size".into()));
    assert!(streams.resume(&starts[0]).is_none());
    assert_eq!(streams.take_removed(), [one.stream]);
    let (again, _) = streams.resume(&starts[1]).expect("retained");
    assert_eq!(read(&mut streams, again), (vec!["an answer of any size".into()], true));
}

#[test]
fn an_attached_reader_continues_after_an_eviction() {
    let mut streams = with_replay_buffer(1, 99);
    let reader = streams.open_exchange(RequestIds::default(), 3);
    let start = streams.begin_events(reader, true).expect("a reader");
    for line in ["a", "b", "c"] {
        assert!(streams.respond(reader.stream, line.into()));
    }
    assert_eq!(
        read(&mut streams, reader),
        (["a", "b", "c"].map(String::from).into(), true)
    );
    // Two of three responses are evicted, so the client cannot resume the stream.
    assert_eq!(streams.detach(reader), []);
    assert!(streams.resume(&start).is_none());
    check_empty(&streams);
}

#[test]
fn an_event_id_of_another_instance_matches_no_stream() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let start = streams.begin_events(reader, true).expect("a reader");
    let other = RequestIds::new([&Id::parse("1").expect("an id")]);
    for wrong in [
        EventId {
            epoch: 8,
            ..start.clone()
        },
        EventId {
            stream: StreamId(5),
            ..start.clone()
        },
        EventId {
            requests: other,
            ..start.clone()
        },
    ] {
        assert!(streams.resume(&wrong).is_none());
    }
    // A position beyond the end is the last one.
    let ahead = EventId {
        position: 99,
        ..start.clone()
    };
    let (again, _) = streams.resume(&ahead).expect("retained");
    assert_eq!(streams.begin_events(again, true), Some(start));
    assert!(streams.respond(reader.stream, "r".into()));
    assert_eq!(read(&mut streams, again), (vec!["r".into()], true));
}

#[test]
fn a_response_has_room_until_too_many_bytes_are_unflushed() {
    let mut streams = streams(9, 99);
    let [one, two] = [(); 2].map(|()| exchange(&mut streams));
    assert!(streams.has_room(one.stream, 1000));
    assert!(streams.respond(one.stream, "twenty bytes of text".into()));
    assert!(streams.has_room(two.stream, 10) && !streams.has_room(two.stream, 11));
    let (_, line) = event(&mut streams, one);
    // The bytes count until they are written.
    let line = streams.unflushed().track(line.into());
    assert!(!streams.has_room(two.stream, 11));
    drop(line);
    assert!(streams.has_room(two.stream, 1000));
    streams.notify(two.stream, "0123456789".into());
    streams.begin_events(two, true);
    streams.detach(two);
    assert!(streams.has_room(two.stream, 1000));
}
