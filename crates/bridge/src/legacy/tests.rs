//! Behavior of the state machine that is hard to cause from outside. `model` covers random
//! schedules.

mod model;

use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::*;

fn message(text: &str) -> Envelope {
    Envelope::parse(text.as_bytes()).expect("a message")
}

fn id(raw: &str) -> Id {
    Id::parse(raw).expect("an id")
}

fn machine() -> (StateMachine, Instant) {
    (StateMachine::new(Config::default()), Instant::now())
}

fn line(machine: &mut StateMachine) -> String {
    String::from_utf8(machine.outbox.take().expect("a line").into())
        .expect("text")
        .trim_end()
        .to_owned()
}

fn event(machine: &mut StateMachine, reader: Reader) -> String {
    let polled = machine.streams.poll_event(reader, &Context::from_waker(Waker::noop()));
    let Poll::Ready(Some(event)) = polled else {
        panic!("{polled:?} is no event")
    };
    String::from_utf8(event.line.into()).expect("text")
}

#[test]
fn an_unread_server_request_moves_to_the_next_stream() {
    let (mut machine, now) = machine();
    let first = machine.listen(now).expect("room");
    let request = r#"{"jsonrpc":"2.0","id":"s1","method":"roots/list"}"#;
    machine.receive(now, message(request));
    machine.detach(now, first);
    let second = machine.listen(now).expect("room");
    assert_eq!(event(&mut machine, second), request);
    machine.detach(now, second);
    // A delivered request goes to no third stream and has the longer timeout.
    let third = machine.listen(now).expect("room");
    assert!(
        machine
            .streams
            .poll_event(third, &Context::from_waker(Waker::noop()))
            .is_pending()
    );
    machine.run_timers(now + Duration::from_secs(599));
    assert!(machine.outbox.is_empty());
    machine.run_timers(now + Duration::from_secs(600));
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":"s1","error":{"code":-32001,"#));
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn a_server_request_cancelled_unread_is_withdrawn() {
    let (mut machine, now) = machine();
    machine.receive(now, message(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#));
    machine.receive(
        now,
        message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#),
    );
    let stream = machine.listen(now).expect("room");
    assert!(
        machine
            .streams
            .poll_event(stream, &Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn a_server_request_beyond_the_limit_gets_an_error() {
    let (mut machine, now) = machine();
    for id in 0..=256 {
        machine.receive(
            now,
            message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)),
        );
    }
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":256,"error""#));
    assert_eq!(machine.config.drop_counts.get(DropReason::ServerRequestRejected), 1);
}

#[test]
fn a_client_response_keeps_the_spelling_of_the_server_id() {
    let (mut machine, now) = machine();
    machine.receive(now, message(r#"{"jsonrpc":"2.0","id":7.0,"method":"ping"}"#));
    machine
        .respond(&message(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#), Some(&id("7")))
        .expect("taken");
    assert_eq!(line(&mut machine), r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#);
}

#[test]
fn a_client_cannot_cancel_initialize() {
    let (mut machine, now) = machine();
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    machine
        .request(now, message(initialize), id("0"), "initialize")
        .expect("taken");
    line(&mut machine);
    let method = "notifications/cancelled";
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}"#;
    machine.notify(now, message(cancel), method).expect("taken");
    assert!(machine.outbox.is_empty());
    // Its timeout does not cancel it either, and a retry is accepted.
    machine.run_timers(now + Duration::from_secs(600));
    assert!(machine.outbox.is_empty());
    assert!(machine.request(now, message(initialize), id("0"), "initialize").is_ok());
}

#[test]
fn progress_for_a_disconnected_client_goes_to_a_listener() {
    let (mut machine, now) = machine();
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":"t"}}}"#;
    let stream = machine.request(now, message(text), id("1"), "m").expect("taken");
    machine.detach(now, stream);
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t"}}"#;
    machine.receive(now, message(progress));
    let listener = machine.listen(now).expect("room");
    assert_eq!(event(&mut machine, listener), progress);
}
