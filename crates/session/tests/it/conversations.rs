//! What the registry asks of conversations and in which order, with scripted ones: a pass-through
//! conversation does not show it.

use std::time::Duration;

use http::{Method, StatusCode};
use session::{
    Config, Stats,
    ports::{
        DetachReason, EndReason, Event, ServerNumber,
        SessionError::{self, BackingOff, NotStarted},
        UserId,
    },
    testing::{
        ConversationCall::{Attach, Close, Detach, Refuse, Retire, Start},
        RefreshOutcome, ScriptedHost, StartOutcome,
    },
};
use tokio::time::{Instant, advance, sleep};

use crate::harness::{Harness, LIFETIME, durable, lock, rpc, run_ready_tasks, session_id};

const ONE: ServerNumber = ServerNumber(1);
const TWO: ServerNumber = ServerNumber(2);
const THREE: ServerNumber = ServerNumber(3);
const NEXT_TRY: Duration = Duration::ZERO;

/// When a rotation is due and was begun.
const ROTATED: Duration = Duration::from_secs(58 * 60);

/// Sessions outlive their servers and are never idle.
fn never_idle() -> Config {
    Config {
        idle_timeout: LIFETIME * 100,
        retain: LIFETIME * 100,
        ..Config::default()
    }
}

/// Opens a session.
async fn open(harness: &Harness) -> String {
    let response = harness.initialize("ann/x").await;
    assert_eq!(response.status(), StatusCode::OK);
    session_id(&response).expect("an id")
}

/// The answer to a call must be that of this server.
async fn must_be_served_by(harness: &Harness, id: &str, server: u64) {
    let (status, body) = harness.ping("ann/x", id).await;
    assert_eq!((status, body), (200, format!("server {server}")));
}

/// The status and `Retry-After` of an `initialize`.
async fn initialize(harness: &Harness) -> (u16, Option<u64>) {
    let response = harness.initialize("ann/x").await;
    let after = response.headers().get("retry-after");
    let after = after.map(|after| after.to_str().expect("text").parse().expect("whole seconds"));
    (response.status().as_u16(), after)
}

#[tokio::test(start_paused = true)]
async fn initialize_waits_for_the_first_server_and_its_record_is_there_before_the_answer() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.hold_starts(true);
    let opening = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    let conversation = host.last_conversation();
    assert_eq!(conversation.take_calls(), [Start(ONE)]);
    assert_eq!(harness.registry.stats().opening, 1);
    host.hold_starts(false);
    let response = opening.output().await;
    assert_eq!(harness.records.only().1.0, "opened");
    assert_eq!(conversation.take_calls(), [Attach(ONE)]);
    let id = session_id(&response).expect("an id");
    assert_eq!(harness.delete("ann/x", &id).await, StatusCode::NO_CONTENT);
    assert_eq!(conversation.take_calls(), [Close(SessionError::Ended)]);
    run_ready_tasks().await;
    assert!(conversation.servers()[0].has_exited());
}

#[tokio::test(start_paused = true)]
async fn server_that_dies_before_it_has_answered_initialize_is_followed_after_a_renewal() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.script([StartOutcome::Dies]);
    open(&harness).await;
    let died = Detach(ONE, DetachReason::BackendDied);
    let followed = [Start(ONE), Attach(ONE), died, Start(TWO), Attach(TWO)];
    assert_eq!(host.last_conversation().take_calls(), followed);
    assert_eq!(harness.credentials("ann").refresh_count(), 1);

    // There is no second renewal within the pause.
    host.script([StartOutcome::Dies]);
    host.hold_starts(true);
    let opening = harness.exchange_in_background("ann/x", None, &rpc("1", "initialize"));
    run_ready_tasks().await;
    let conversation = host.last_conversation();
    host.hold_starts(false);
    assert_eq!(opening.output().await.0, 502);
    let refused = Refuse(NotStarted { retry_after: NEXT_TRY });
    // The call comes back from the dead server after the refusal, and is refused in the same way.
    let ended = [
        Start(ONE),
        Attach(ONE),
        died,
        refused,
        refused,
        Close(SessionError::Ended),
    ];
    assert_eq!(conversation.take_calls(), ended);
    run_ready_tasks().await;
    assert_eq!((host.start_count(), harness.registry.stats().opening), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn server_that_never_answers_initialize_is_stopped_and_the_call_refused() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.script([StartOutcome::Silent]);
    let begun = Instant::now();
    let opening = harness.exchange_in_background("ann/x", None, &rpc("1", "initialize"));
    run_ready_tasks().await;
    let conversation = host.last_conversation();
    assert_eq!(opening.output().await.0, 502);
    assert_eq!(begun.elapsed(), durable().start_timeout);
    assert_eq!(
        conversation.take_calls(),
        [
            Start(ONE),
            Attach(ONE),
            Detach(ONE, DetachReason::Expired),
            Refuse(NotStarted { retry_after: NEXT_TRY }),
            // The call comes back from the server that is being stopped.
            Refuse(NotStarted { retry_after: NEXT_TRY }),
            Close(SessionError::Ended),
        ]
    );
    run_ready_tasks().await;
    assert!(conversation.servers()[0].has_exited());
    assert_eq!(
        harness.credentials("ann").refresh_count(),
        0,
        "a slow server may have a good credential"
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_while_the_start_fails_are_refused_together() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    let id = open(&harness).await;
    let conversation = host.last_conversation();
    conversation.servers()[0].die();
    run_ready_tasks().await;
    conversation.take_calls();
    host.hold_starts(true);
    host.script([StartOutcome::Missing]);
    let calls = [
        harness.ping_in_background("ann/x", &id),
        harness.ping_in_background("ann/x", &id),
    ];
    run_ready_tasks().await;
    host.hold_starts(false);
    for call in calls {
        let (status, body) = call.output().await;
        assert!(status == 502 && body.contains(r#""id":77"#), "{body}");
    }
    let refused = Refuse(NotStarted { retry_after: NEXT_TRY });
    assert_eq!(conversation.take_calls(), [Start(TWO), refused]);
    must_be_served_by(&harness, &id, 3).await;
    assert_eq!(conversation.take_calls(), [Start(THREE), Attach(THREE)]);
}

#[tokio::test(start_paused = true)]
async fn server_that_does_not_fit_ends_the_session_for_all_calls() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    let id = open(&harness).await;
    let conversation = host.last_conversation();
    conversation.servers()[0].die();
    run_ready_tasks().await;
    host.script([StartOutcome::Unfit]);
    let calls = [
        harness.ping_in_background("ann/x", &id),
        harness.ping_in_background("ann/x", &id),
    ];
    for call in calls {
        assert_eq!(call.output().await.0, 404);
    }
    harness.must_be(404, "ann/x", &id).await;
    assert_eq!(harness.event_count(Event::Ended(EndReason::Unrevivable)), 1);
    assert!(
        conversation
            .take_calls()
            .ends_with(&[Start(TWO), Close(SessionError::Ended)])
    );
    open(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn server_that_does_not_fit_does_not_replace_the_one_that_serves() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(never_idle(), &host).await;
    let id = open(&harness).await;
    host.script([StartOutcome::Unfit]);
    sleep(ROTATED).await;
    assert_eq!(host.start_count(), 2);
    must_be_served_by(&harness, &id, 1).await;
    sleep(LIFETIME - ROTATED - Duration::from_millis(1)).await;
    assert_eq!(host.start_count(), 2, "there is no use in another attempt");
    must_be_served_by(&harness, &id, 1).await;
}

#[tokio::test(start_paused = true)]
async fn missing_program_renews_no_credential() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.script([StartOutcome::Missing]);
    assert_eq!(initialize(&harness).await, (502, Some(1)));
    assert_eq!((harness.credentials("ann").refresh_count(), host.start_count()), (0, 1));
    open(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn failing_starts_delay_further_starts_of_their_user_until_a_server_answers() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.script([StartOutcome::Failed; 6]);
    for _ in 0..12 {
        let (status, after) = initialize(&harness).await;
        assert!(matches!(status, 502 | 503) && after.is_some(), "{status} {after:?}");
    }
    assert_eq!(host.start_count(), 3, "two, and one after a renewal");
    // Other users start theirs.
    let other = harness.initialize("bob/x").await;
    assert_eq!(other.status(), StatusCode::BAD_GATEWAY);
    let mut delays = Vec::new();
    while let (503, Some(delay)) = initialize(&harness).await {
        delays.push(delay);
        sleep(Duration::from_secs(delay)).await;
        if let (200, _) = initialize(&harness).await {
            break;
        }
    }
    assert_eq!(delays, [1, 2]);
    // The failures are forgotten.
    host.script([StartOutcome::Missing]);
    assert_eq!(initialize(&harness).await, (502, Some(1)));
    open(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn session_backs_off_by_a_refusal() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    let id = open(&harness).await;
    let conversation = host.last_conversation();
    conversation.servers()[0].die();
    run_ready_tasks().await;
    host.script([StartOutcome::Missing; 2]);
    for _ in 0..2 {
        harness.must_be(502, "ann/x", &id).await;
    }
    conversation.take_calls();
    harness.must_be(503, "ann/x", &id).await;
    let refused = Refuse(BackingOff(durable().backoff));
    assert_eq!(conversation.take_calls(), [refused]);
}

#[tokio::test(start_paused = true)]
async fn start_that_panics_is_answered_with_the_id_of_the_request() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.script([StartOutcome::Panics]);
    let (status, body) = harness.exchange("ann/x", None, &rpc("5", "initialize")).await;
    assert!(status == 500 && body.contains(r#""id":5,"error""#), "{status} {body}");
    let id = open(&harness).await;
    host.last_conversation().servers()[0].die();
    run_ready_tasks().await;
    host.script([StartOutcome::Panics]);
    harness.must_be(500, "ann/x", &id).await;
    must_be_served_by(&harness, &id, 3).await;
}

#[tokio::test(start_paused = true)]
async fn work_keeps_its_server_although_no_exchange_is_open() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    open(&harness).await;
    let conversation = host.last_conversation();
    conversation.take_calls();
    conversation.begin_work(1);
    sleep(durable().idle_timeout * 2).await;
    assert_eq!(harness.registry.stats().attached, 1);
    conversation.end_work(1);
    sleep(durable().idle_timeout - Duration::from_secs(1)).await;
    assert_eq!(harness.registry.stats().attached, 1, "the end of the work is activity");
    assert_eq!(conversation.take_calls(), []);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(conversation.take_calls(), [Retire(ONE)]);
    assert_eq!(harness.registry.stats().dormant, 1);
    assert!(conversation.servers()[0].has_exited());
}

#[tokio::test(start_paused = true)]
async fn next_rotation_waits_for_the_work_on_a_replaced_server() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(never_idle(), &host).await;
    let id = open(&harness).await;
    let conversation = host.last_conversation();
    conversation.begin_work(1);
    harness.registry.rotate_user(&UserId("ann".into()));
    run_ready_tasks().await;
    assert_eq!(
        conversation.take_calls(),
        [Start(ONE), Attach(ONE), Start(TWO), Attach(TWO)]
    );
    sleep(Duration::from_secs(600)).await;
    for _ in 0..3 {
        harness.registry.rotate_user(&UserId("ann".into()));
        run_ready_tasks().await;
    }
    must_be_served_by(&harness, &id, 2).await;
    assert_eq!(conversation.take_calls(), []);
    let servers = conversation.servers();
    assert!(!servers[0].has_exited() && !servers[1].has_exited());
    conversation.end_work(1);
    run_ready_tasks().await;
    assert_eq!(
        conversation.take_calls(),
        [Start(THREE), Attach(THREE)],
        "it is due at once"
    );
    assert!(servers[0].has_exited() && servers[1].has_exited());
    must_be_served_by(&harness, &id, 3).await;
    assert_eq!(harness.event_count(Event::RotationFailed), 0);
}

#[tokio::test(start_paused = true)]
async fn replaced_server_has_the_rest_of_the_life_of_its_credential() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(never_idle(), &host).await;
    open(&harness).await;
    let conversation = host.last_conversation();
    conversation.begin_work(1);
    conversation.begin_work(2);
    sleep(Duration::from_secs(60)).await;
    harness.credentials("ann").replace();
    harness.registry.rotate_user(&UserId("ann".into()));
    run_ready_tasks().await;
    let servers = conversation.servers();
    assert_eq!(servers.len(), 2);
    sleep(LIFETIME - Duration::from_secs(61)).await;
    assert!(!servers[0].has_exited());
    assert_eq!(conversation.servers().len(), 2, "the rotation that is due by now waits");
    // What is in flight then has a moment beyond that, for which no rotation waits.
    sleep(Duration::from_secs(1)).await;
    run_ready_tasks().await;
    assert_eq!(conversation.servers().len(), 3);
    assert!(!servers[0].has_exited());
    sleep(Duration::from_secs(5)).await;
    run_ready_tasks().await;
    assert!(servers[0].has_exited() && !servers[1].has_exited());
}

#[tokio::test(start_paused = true)]
async fn expired_server_is_detached_at_that_moment_and_has_a_moment_to_finish() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(never_idle(), &host).await;
    open(&harness).await;
    let conversation = host.last_conversation();
    harness
        .credentials("ann")
        .set_refresh_outcome(RefreshOutcome::Transient);
    conversation.begin_work(1);
    sleep(LIFETIME - Duration::from_millis(1)).await;
    assert_eq!(conversation.take_calls(), [Start(ONE), Attach(ONE)]);
    sleep(Duration::from_millis(1)).await;
    run_ready_tasks().await;
    assert_eq!(conversation.take_calls(), [Detach(ONE, DetachReason::Expired)]);
    assert_eq!(harness.registry.stats().dormant, 1);
    let server = &conversation.servers()[0];
    assert!(!server.has_exited());
    conversation.end_work(1);
    run_ready_tasks().await;
    assert!(server.has_exited());
}

#[tokio::test(start_paused = true)]
async fn quota_counts_a_replaced_server_and_refuses_no_rotation() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(
        Config {
            max_sessions_per_user: 2,
            ..never_idle()
        },
        &host,
    )
    .await;
    open(&harness).await;
    let conversation = host.last_conversation();
    conversation.begin_work(1);
    harness.registry.rotate_user(&UserId("ann".into()));
    run_ready_tasks().await;
    assert_eq!(initialize(&harness).await.0, 429);
    conversation.end_work(1);
    run_ready_tasks().await;
    open(&harness).await;
    // At the quota, too.
    conversation.begin_work(2);
    harness.registry.rotate_user(&UserId("ann".into()));
    run_ready_tasks().await;
    let running = conversation
        .servers()
        .iter()
        .filter(|server| !server.has_exited())
        .count();
    assert_eq!((running, harness.registry.stats().attached), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn deletion_with_a_wrong_version_keeps_the_session_awake_or_not() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    let id = open(&harness).await;
    for _ in 0..2 {
        let mut request = harness.request(Method::DELETE, "ann/x", Some(&id), "");
        let version = "1900-01-01".parse().expect("a value");
        request.headers_mut().insert("mcp-protocol-version", version);
        let response = harness.registry.serve(request).await.response;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        sleep(durable().idle_timeout * 2).await;
        assert_eq!(harness.registry.stats().dormant, 1);
    }
    assert_eq!(harness.delete("ann/x", &id).await, StatusCode::NO_CONTENT);
    assert_eq!(harness.registry.stats(), Stats::default());
    assert_eq!(host.start_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn blank_conversation_of_a_dormant_session_is_put_down_and_made_again_from_its_record() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    let id = open(&harness).await;
    host.last_conversation().set("changed");
    sleep(durable().idle_timeout * 2).await;
    assert_eq!((harness.registry.stats().dormant, host.conversation_count()), (1, 1));
    // Only the record is left: its reader gets what it had.
    must_be_served_by(&harness, &id, 2).await;
    assert_eq!(host.conversation_count(), 2);
    assert_eq!(harness.records.only().1.0, "changed");

    // One that something holds on to is not put down, nor is one whose revision is not written.
    let conversation = host.last_conversation();
    sleep(durable().idle_timeout * 2).await;
    must_be_served_by(&harness, &id, 3).await;
    assert_eq!(host.conversation_count(), 2);
    *lock(&harness.records.refuses) = true;
    conversation.set("not written");
    drop(conversation);
    sleep(durable().idle_timeout * 2).await;
    assert_eq!(harness.registry.stats().dormant, 1);
    must_be_served_by(&harness, &id, 4).await;
    assert_eq!(host.conversation_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn conversation_is_made_once_after_a_restart_from_a_record_that_can_be_used() {
    let host = ScriptedHost::new();
    let mut harness = Harness::hosted(durable(), &host).await;
    let id = open(&harness).await;
    harness.registry.stop().await;
    harness.restart().await;
    let calls: Vec<_> = (0..5).map(|_| harness.ping_in_background("ann/x", &id)).collect();
    for call in calls {
        assert_eq!(call.output().await, (200, "server 1".to_owned()));
    }
    assert_eq!(host.conversation_count(), 2);

    host.last_conversation().set("unusable");
    harness.registry.stop().await;
    harness.restart().await;
    harness.must_be(404, "ann/x", &id).await;
    assert_eq!(harness.event_count(Event::Ended(EndReason::Unrevivable)), 1);
}

#[tokio::test(start_paused = true)]
async fn abandoned_opening_closes_its_conversation() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host).await;
    host.hold_starts(true);
    let opening = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    let conversation = host.last_conversation();
    drop(opening);
    run_ready_tasks().await;
    assert_eq!(conversation.take_calls(), [Start(ONE), Close(SessionError::Ended)]);
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn session_with_work_on_a_replaced_server_is_neither_idle_nor_evicted() {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(
        Config {
            max_sessions_per_user: 1,
            ..durable()
        },
        &host,
    )
    .await;
    let id = open(&harness).await;
    let conversation = host.last_conversation();
    conversation.begin_work(1);
    harness.registry.rotate_user(&UserId("ann".into()));
    run_ready_tasks().await;
    sleep(durable().idle_timeout * 2).await;
    assert_eq!(harness.registry.stats().attached, 1);
    conversation.servers()[1].die();
    run_ready_tasks().await;
    assert_eq!(harness.registry.stats().dormant, 1);
    assert_eq!(initialize(&harness).await.0, 429);
    conversation.end_work(1);
    advance(Duration::from_secs(1)).await;
    run_ready_tasks().await;
    open(&harness).await;
    harness.must_be(404, "ann/x", &id).await;
}
