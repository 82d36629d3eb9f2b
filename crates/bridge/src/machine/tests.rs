//! Behavior of the state machine that is hard to cause from outside. `model` covers random
//! schedules, `modern_model` those of clients of 2026-07-28.

mod model;
mod modern_model;

use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::*;
use crate::jsonrpc::MessageKind;

fn message(text: &str) -> Envelope {
    Envelope::parse(text.as_bytes()).expect("a message")
}

fn id(raw: &str) -> Id {
    Id::parse(raw).expect("an id")
}

/// A machine whose link 1 is attached.
fn machine() -> (StateMachine, Instant) {
    let (mut machine, now) = (
        StateMachine::new(Config::default(), "tag", "grant", None),
        Instant::now(),
    );
    assert!(machine.start_link(1));
    machine.attach(now, 1);
    (machine, now)
}

fn has_output(machine: &StateMachine, link: LinkNumber) -> bool {
    machine.links.get(link).is_some_and(|entry| !entry.outbox.is_empty())
}

/// The next line for the server of link 1.
fn line(machine: &mut StateMachine) -> String {
    let line = machine.take_output(1).expect("a line");
    machine.mark_written(1);
    String::from_utf8(line.into()).expect("text").trim_end().to_owned()
}

fn question(id: &str) -> Envelope {
    message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#))
}

/// The id of the question that a client has read.
fn asked(line: &str) -> Id {
    let MessageKind::Request { id, .. } = message(line).kind().clone() else {
        panic!("{line} is not a question")
    };
    id
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
    machine.receive(now, 1, question("\"s1\""));
    machine.detach_reader(now, first);
    let second = machine.listen(now).expect("room");
    asked(&event(&mut machine, second));
    machine.detach_reader(now, second);
    // A delivered request goes to no third stream and has the longer timeout.
    let third = machine.listen(now).expect("room");
    assert!(
        machine
            .streams
            .poll_event(third, &Context::from_waker(Waker::noop()))
            .is_pending()
    );
    machine.run_timers(now + Duration::from_secs(599));
    assert!(!has_output(&machine, 1));
    machine.run_timers(now + Duration::from_secs(600));
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":"s1","error":{"code":-32001,"#));
    // The client that may have read it learns that it is over.
    assert!(event(&mut machine, third).contains("notifications/cancelled"));
    machine.detach_reader(now, third);
    machine.run_timers(now + Duration::from_secs(2000));
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn a_server_request_cancelled_unread_is_withdrawn() {
    let (mut machine, now) = machine();
    machine.receive(now, 1, question("5"));
    machine.receive(
        now,
        1,
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
        machine.receive(now, 1, question(&id.to_string()));
    }
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":256,"error""#));
    assert_eq!(machine.config.drop_counts.get(DropReason::ServerRequestRejected), 1);
}

#[test]
fn a_client_response_keeps_the_spelling_of_the_server_id() {
    let (mut machine, now) = machine();
    let reader = machine.listen(now).expect("room");
    machine.receive(now, 1, question("7.0"));
    let asked = asked(&event(&mut machine, reader));
    let answer = message(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, asked.raw()));
    machine.respond(&answer, Some(&asked)).expect("taken");
    assert_eq!(line(&mut machine), r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#);
}

#[test]
fn a_client_cannot_cancel_initialize() {
    let (mut machine, now) = machine();
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    machine
        .request(now, message(initialize), id("0"), "initialize", true)
        .expect("taken");
    line(&mut machine);
    let method = "notifications/cancelled";
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}"#;
    machine.notify(now, message(cancel), method, true).expect("taken");
    assert!(!has_output(&machine, 1));
    // Its timeout does not cancel it either, and a retry is accepted.
    machine.run_timers(now + Duration::from_secs(600));
    assert!(!has_output(&machine, 1));
    assert!(
        machine
            .request(now, message(initialize), id("0"), "initialize", true)
            .is_ok()
    );
}

#[test]
fn equal_ids_of_two_servers_are_two_questions() {
    let (mut machine, now) = machine();
    let reader = machine.listen(now).expect("room");
    machine.receive(now, 1, question("1"));
    // A call keeps the first server busy, so that it may go on asking.
    let first = asked(&event(&mut machine, reader));
    assert!(machine.start_link(2));
    machine.attach(now, 2);
    assert_eq!((machine.in_flight(1), machine.in_flight(2)), (1, 0));
    machine.receive(now, 2, question("1"));
    let second = asked(&event(&mut machine, reader));
    let answer = |id: &Id| message(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.raw()));
    machine.respond(&answer(&second), Some(&second)).expect("taken");
    assert!(has_output(&machine, 2) && !has_output(&machine, 1));
    machine.respond(&answer(&first), Some(&first)).expect("taken");
    assert_eq!(line(&mut machine), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
}

#[test]
fn a_server_that_serves_the_session_no_longer_may_ask_nothing() {
    let (mut machine, now) = machine();
    machine.listen(now).expect("room");
    assert!(machine.start_link(2));
    machine.attach(now, 2);
    machine.receive(now, 1, question("1"));
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"#));
}

#[test]
fn a_setting_that_a_replaced_server_grants_goes_to_the_current_one() {
    let (mut machine, now) = machine();
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}"#;
    machine
        .request(now, message(subscribe), id("1"), "resources/subscribe", true)
        .expect("room");
    line(&mut machine);
    assert!(machine.start_link(2));
    machine.attach(now, 2);
    machine.receive(now, 1, message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
    let sent = machine.take_output(2).expect("the setting");
    assert!(String::from_utf8_lossy(&sent).contains(r#""params":{"uri":"a:b"}"#));
}

#[test]
fn a_task_keeps_its_server_busy_until_its_result_is_fetched() {
    let (mut machine, now) = machine();
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","task":{"ttl":5000}}}"#;
    machine
        .request(now, message(text), id("1"), "tools/call", true)
        .expect("room");
    line(&mut machine);
    let created = r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t","ttl":5000,"status":"working"}}}"#;
    machine.receive(now, 1, message(created));
    assert_eq!(machine.in_flight(1), 1);
    assert!(machine.start_link(2));
    machine.attach(now, 2);
    // Its result comes from the server that runs it.
    let text = r#"{"jsonrpc":"2.0","id":2,"method":"tasks/result","params":{"taskId":"t"}}"#;
    machine
        .request(now, message(text), id("2"), "tasks/result", true)
        .expect("room");
    assert!(line(&mut machine).contains("tasks/result"));
    machine.receive(now, 1, message(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#));
    assert_eq!(machine.in_flight(1), 0);
}

#[test]
fn the_ttl_of_a_task_ends_it() {
    let (mut machine, now) = machine();
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","task":{}}}"#;
    machine
        .request(now, message(text), id("1"), "tools/call", true)
        .expect("room");
    line(&mut machine);
    let created = r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t","ttl":5000,"status":"working"}}}"#;
    machine.receive(now, 1, message(created));
    machine.run_timers(now + Duration::from_millis(4999));
    assert_eq!(machine.in_flight(1), 1);
    machine.run_timers(now + Duration::from_millis(5000));
    assert_eq!(machine.in_flight(1), 0);
}

#[test]
fn a_setting_that_its_server_never_reads_leaves_nothing_behind() {
    let config = Config {
        outgoing: crate::config::QueueLimits {
            messages: 2,
            bytes: 1000,
        },
        ..Config::default()
    };
    let mut machine = StateMachine::new(config, "tag", "grant", None);
    assert!(machine.start_link(1));
    machine.attach(Instant::now(), 1);
    for _ in 0..100 {
        machine.send_setting(1, &ClientSetting::Subscribe("a:b".into()));
    }
    let own = machine.links.get(1).map(|entry| entry.own.len());
    assert_eq!(own, Some(4), "twice the limit of the queue");
}

#[test]
fn discovery_in_a_session_with_a_handshake_reaches_the_server() {
    let (mut machine, now) = machine();
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    machine
        .request(now, message(request), id("1"), "initialize", true)
        .expect("accepted");
    line(&mut machine);
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    machine.receive(now, 1, message(result));
    let discover = message(r#"{"jsonrpc":"2.0","id":2,"method":"server/discover"}"#);
    machine
        .request(now, discover, id("2"), "server/discover", true)
        .expect("accepted");
    assert!(line(&mut machine).contains("server/discover"));
}
