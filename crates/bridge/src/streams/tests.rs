//! Streams by themselves: where messages go, what is kept, and what gives way.

use super::*;
use crate::jsonrpc::Id;

impl Streams {
    /// The number of streams.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// The number of retained streams.
    pub(crate) fn count_retained(&self) -> usize {
        self.all.keys().filter(|id| self.is_retained(**id)).count()
    }

    /// The number of messages in the replay buffer, and their bytes.
    pub(crate) fn replay_usage(&self) -> (usize, usize) {
        self.replay_buffer.usage()
    }
}

const PLENTY: QueueLimits = QueueLimits {
    messages: 99,
    bytes: 9999,
};

fn with(backlog: QueueLimits, replay_buffer: QueueLimits) -> Streams {
    let config = Config {
        backlog,
        replay_buffer,
        max_listeners: 2,
        max_unflushed: 30,
        ..Config::default()
    };
    Streams::new(7, &config)
}

fn streams(messages: usize, bytes: usize) -> Streams {
    with(QueueLimits { messages, bytes }, PLENTY)
}

fn keeping(messages: usize, bytes: usize) -> Streams {
    with(PLENTY, QueueLimits { messages, bytes })
}

fn told(line: &'static str) -> StreamMessage {
    StreamMessage::Notification {
        line: line.into(),
        scope: NotificationScope::Session,
    }
}

fn progress(token: &str, line: &'static str) -> StreamMessage {
    StreamMessage::Notification {
        line: line.into(),
        scope: NotificationScope::Progress(key(token)),
    }
}

fn key(raw: &str) -> RequestKey {
    Id::parse(raw).expect("an id").key().clone()
}

fn ask(raw: &'static str) -> StreamMessage {
    StreamMessage::ServerRequest {
        key: key(raw),
        line: raw.into(),
    }
}

fn exchange(streams: &mut Streams) -> Reader {
    streams.open_exchange(RequestIds::default(), 1).0
}

fn poll(streams: &mut Streams, reader: Reader) -> Poll<Option<Event>> {
    streams.poll_event(reader, &Context::from_waker(Waker::noop()))
}

fn form(streams: &mut Streams, reader: Reader) -> Poll<ResponseMode> {
    streams.poll_response_mode(reader, &Context::from_waker(Waker::noop()))
}

/// All that a stream holds, and whether it has ended.
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
    (event.id, String::from_utf8(event.line.into()).expect("text"))
}

/// Nothing is left on any account.
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
    assert_eq!(streams.route(told("a")), Routed::Placed);
    let (listener, _) = streams.open_listener();
    let (newer, _) = streams.open_listener();
    streams.route(told("b"));
    assert_eq!(streams.detach(newer), [told("b")]);
    streams.route(told("c"));
    assert_eq!(read(&mut streams, first), (vec![], false));
    assert_eq!(read(&mut streams, second), (vec!["a".into()], false));
    assert_eq!(read(&mut streams, listener), (vec!["c".into()], false));
}

#[test]
fn what_finds_no_stream_waits_for_the_next_and_goes_there_once() {
    let mut streams = streams(9, 99);
    assert_eq!(streams.route(told("a")), Routed::Waiting);
    assert_eq!(streams.route(ask("1")), Routed::Waiting);
    let responses_only = streams.open_response_only(RequestIds::default(), 1);
    let (exchange, asks) = streams.open_exchange(RequestIds::default(), 1);
    assert_eq!(asks, [key("1")]);
    assert_eq!(streams.open_listener().1, []);
    assert_eq!(read(&mut streams, responses_only), (vec![], false));
    assert_eq!(read(&mut streams, exchange), (vec!["a".into(), "1".into()], false));
}

#[test]
fn of_the_progress_that_waits_for_somebody_the_newest_is_left() {
    let mut streams = streams(9, 99);
    for item in [progress("1", "a"), progress("2", "b"), told("x"), progress("1", "c")] {
        assert_eq!(streams.route(item), Routed::Waiting);
    }
    let (listener, _) = streams.open_listener();
    // With somebody to read it each of them is passed on.
    streams.route(progress("2", "d"));
    assert_eq!(
        read(&mut streams, listener),
        (["b", "x", "c", "d"].map(String::from).into(), false)
    );
    assert_eq!(streams.take_dropped(), 0);
    streams.detach(listener);
    check_empty(&streams);
}

#[test]
fn an_answer_ends_its_stream() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    assert!(streams.notify(reader.stream, "p".into()));
    assert!(streams.respond(reader.stream, "r".into()));
    assert!(!streams.notify(reader.stream, "late".into()));
    assert!(!streams.respond(reader.stream, "again".into()));
    assert_eq!(streams.route(told("x")), Routed::Waiting);
    assert_eq!(form(&mut streams, reader), Poll::Ready(ResponseMode::Sse));
    assert_eq!(read(&mut streams, reader), (vec!["p".into(), "r".into()], true));
    streams.detach(reader);
    assert!(!streams.respond(reader.stream, "r".into()));
}

#[test]
fn answers_with_nothing_before_them_are_taken_whole() {
    let mut streams = streams(9, 99);
    let (reader, _) = streams.open_exchange(RequestIds::default(), 2);
    assert_eq!(form(&mut streams, reader), Poll::Pending);
    assert!(streams.respond(reader.stream, "a".into()));
    assert_eq!(form(&mut streams, reader), Poll::Pending);
    assert!(streams.respond(reader.stream, "b".into()));
    let lines = vec!["a".into(), "b".into()];
    assert_eq!(form(&mut streams, reader), Poll::Ready(ResponseMode::Json(lines)));
    assert_eq!(read(&mut streams, reader), (vec![], true));
    assert_eq!(streams.detach(reader), []);
    check_empty(&streams);
}

#[test]
fn a_slow_reader_loses_its_oldest_notifications_and_nothing_else() {
    let mut streams = streams(3, 99);
    let reader = exchange(&mut streams);
    for item in [told("a"), ask("1"), told("b"), told("c"), told("d")] {
        assert_eq!(streams.route(item), Routed::Placed);
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
fn a_queue_full_of_requests_hands_the_next_back() {
    let mut streams = streams(2, 99);
    let (reader, _) = streams.open_listener();
    assert_eq!(streams.route(ask("1")), Routed::Placed);
    assert_eq!(streams.route(ask("2")), Routed::Placed);
    assert_eq!(streams.route(ask("3")), Routed::Rejected);
    assert_eq!(streams.route(told("a")), Routed::Rejected);
    assert_eq!(streams.take_dropped(), 1);
    assert!(streams.withdraw(&key("1")) && !streams.withdraw(&key("3")));
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
    assert_eq!(streams.detach(two).len(), 1);
    assert_eq!(streams.bytes, 0);
}

#[test]
fn one_listener_too_many_ends_the_oldest() {
    let mut streams = streams(9, 99);
    let readers = [(); 3].map(|()| streams.open_listener().0);
    assert_eq!(readers.map(|reader| read(&mut streams, reader).1), [true, false, false]);
    streams.end_listeners();
    assert_eq!(readers.map(|reader| read(&mut streams, reader).1), [true, true, true]);
}

#[test]
fn a_listener_that_had_to_make_room_is_listened_to_again() {
    let mut streams = streams(9, 99);
    let (oldest, _) = streams.open_listener();
    streams.prime(oldest);
    streams.route(told("a"));
    let (id, _) = event(&mut streams, oldest);
    let others = [(); 2].map(|()| streams.open_listener().0);
    assert_eq!(read(&mut streams, oldest), (vec![], true));
    streams.detach(oldest);
    let (again, _) = streams.resume(&id).expect("kept");
    assert_eq!(read(&mut streams, again), (vec![], false));
    assert_eq!(others.map(|reader| read(&mut streams, reader).1), [true, false]);
}

#[test]
fn a_stream_is_gone_with_its_reader_unless_the_client_has_an_event_id() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    streams.notify(reader.stream, "p".into());
    let (id, _) = event(&mut streams, reader);
    streams.detach(reader);
    assert!(streams.resume(&id).is_none());
    assert!(!streams.respond(reader.stream, "r".into()));
    check_empty(&streams);
}

#[test]
fn a_client_that_comes_back_gets_what_it_has_not_seen_and_the_rest() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let start = streams.prime(reader).expect("a reader");
    for line in ["1", "2", "3"] {
        streams.notify(reader.stream, line.into());
    }
    let (first, _) = event(&mut streams, reader);
    let (second, _) = event(&mut streams, reader);
    assert_eq!(streams.detach(reader), []);
    // What comes meanwhile gathers.
    assert!(streams.notify(reader.stream, "4".into()) && streams.respond(reader.stream, "r".into()));
    assert!(streams.is_retained(reader.stream));
    for (from, expected) in [
        (&second, &["3", "4", "r"][..]),
        (&start, &["1", "2", "3", "4", "r"]),
        (&first, &["2", "3", "4", "r"]),
    ] {
        let (again, _) = streams.resume(from).expect("kept");
        assert!(!streams.is_retained(reader.stream));
        assert_eq!(streams.prime(again).as_ref(), Some(from));
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
fn a_reader_that_comes_back_takes_the_stream_over() {
    let mut streams = streams(9, 99);
    let (old, _) = streams.open_listener();
    let start = streams.prime(old).expect("a reader");
    streams.route(told("a"));
    event(&mut streams, old);
    let (new, _) = streams.resume(&start).expect("kept");
    streams.route(told("b"));
    assert_eq!(read(&mut streams, old), (vec![], true));
    assert_eq!(streams.prime(old), None);
    assert_eq!(streams.detach(old), []);
    assert_eq!(read(&mut streams, new), (vec!["a".into(), "b".into()], false));
    assert_eq!(streams.count_attached(), 1);
}

#[test]
fn what_a_reader_leaves_behind_finds_its_way_unless_it_belongs_to_the_stream() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let start = streams.prime(reader).expect("a reader");
    streams.notify(reader.stream, "p".into());
    streams.route(told("a"));
    streams.route(ask("1"));
    assert_eq!(streams.detach(reader), [told("a"), ask("1")]);
    assert_eq!(streams.route(ask("1")), Routed::Waiting);
    let (again, attached_requests) = streams.resume(&start).expect("kept");
    assert_eq!(attached_requests, [key("1")]);
    assert_eq!(read(&mut streams, again), (vec!["p".into(), "1".into()], false));
}

#[test]
fn a_listener_that_comes_back_hears_again_what_it_may_have_missed() {
    let mut streams = streams(9, 99);
    let (reader, _) = streams.open_listener();
    let start = streams.prime(reader).expect("a reader");
    streams.route(told("a"));
    event(&mut streams, reader);
    streams.detach(reader);
    // Elsewhere there is nobody, so this waits; and it comes on one stream.
    assert_eq!(streams.route(told("b")), Routed::Waiting);
    let (again, _) = streams.resume(&start).expect("kept");
    assert_eq!(read(&mut streams, again), (vec!["a".into(), "b".into()], false));
    assert_eq!(streams.route(told("c")), Routed::Placed);
}

#[test]
fn a_listener_that_has_brought_nothing_is_not_kept() {
    let mut streams = streams(9, 99);
    let (reader, _) = streams.open_listener();
    let start = streams.prime(reader).expect("a reader");
    streams.detach(reader);
    assert!(streams.resume(&start).is_none());
    check_empty(&streams);
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let mut streams = keeping(2, 99);
    let reader = exchange(&mut streams);
    let start = streams.prime(reader).expect("a reader");
    for line in ["1", "2", "3"] {
        streams.notify(reader.stream, line.into());
    }
    assert_eq!(read(&mut streams, reader).0.len(), 3);
    assert_eq!(streams.replay_usage(), (2, 2));
    let (again, _) = streams.resume(&start).expect("kept");
    assert_eq!(read(&mut streams, again), (vec!["2".into(), "3".into()], false));
}

#[test]
fn with_its_answer_a_stream_is_forgotten() {
    let mut streams = keeping(9, 10);
    let [one, two] = [(); 2].map(|()| exchange(&mut streams));
    let starts = [one, two].map(|reader| streams.prime(reader).expect("a reader"));
    for reader in [one, two] {
        streams.detach(reader);
    }
    assert!(streams.respond(one.stream, "123456".into()));
    assert!(streams.respond(two.stream, "an answer of any size".into()));
    assert!(streams.resume(&starts[0]).is_none());
    assert_eq!(streams.take_removed(), [one.stream]);
    let (again, _) = streams.resume(&starts[1]).expect("kept");
    assert_eq!(read(&mut streams, again), (vec!["an answer of any size".into()], true));
}

#[test]
fn a_reader_goes_on_when_what_was_kept_of_its_stream_is_forgotten() {
    let mut streams = keeping(1, 99);
    let (reader, _) = streams.open_exchange(RequestIds::default(), 3);
    let start = streams.prime(reader).expect("a reader");
    for line in ["a", "b", "c"] {
        assert!(streams.respond(reader.stream, line.into()));
    }
    assert_eq!(
        read(&mut streams, reader),
        (["a", "b", "c"].map(String::from).into(), true)
    );
    // Two of three answers cannot be given again, so the client is told that they are lost.
    assert_eq!(streams.detach(reader), []);
    assert!(streams.resume(&start).is_none());
    check_empty(&streams);
}

#[test]
fn an_event_id_of_another_bridge_or_made_up_is_of_no_stream() {
    let mut streams = streams(9, 99);
    let reader = exchange(&mut streams);
    let start = streams.prime(reader).expect("a reader");
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
    // A place that has not been reached is the last one.
    let ahead = EventId {
        position: 99,
        ..start.clone()
    };
    let (again, _) = streams.resume(&ahead).expect("kept");
    assert_eq!(streams.prime(again), Some(start));
    assert!(streams.respond(reader.stream, "r".into()));
    assert_eq!(read(&mut streams, again), (vec!["r".into()], true));
}

#[test]
fn answers_have_room_until_too_much_is_unread() {
    let mut streams = streams(9, 99);
    let [one, two] = [(); 2].map(|()| exchange(&mut streams));
    assert!(streams.has_room(one.stream, 1000));
    assert!(streams.respond(one.stream, "twenty bytes of text".into()));
    assert!(streams.has_room(two.stream, 10) && !streams.has_room(two.stream, 11));
    let (_, line) = event(&mut streams, one);
    // It is unread until it is written.
    let line = streams.unflushed().track(line.into());
    assert!(!streams.has_room(two.stream, 11));
    drop(line);
    assert!(streams.has_room(two.stream, 1000));
    streams.notify(two.stream, "0123456789".into());
    streams.prime(two);
    streams.detach(two);
    assert!(streams.has_room(two.stream, 1000));
}
