//! Implicit sessions: made by one of their first requests, limited for each grant, and made again
//! after their end without the client noticing.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, StatusCode};
use session::{
    Config, Stats,
    ports::{AuthenticatedAt, Conversation as _, EndReason, Event, GrantId, UserId},
    testing::{RefreshOutcome, ScriptedHost, StartOutcome},
};
use tokio::time::{Instant, sleep};

use crate::harness::{Harness, RETAIN, body_text, durable, in_background, lock, rpc, run_ready_tasks, session_id};

async fn hosted(config: Config) -> (Harness, Arc<ScriptedHost>) {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(config, &host).await;
    (harness, host)
}

/// The tag of the only session.
fn only_tag(harness: &Harness) -> String {
    hex::encode(&harness.records.only().0.key.0[..4])
}

#[tokio::test(start_paused = true)]
async fn simultaneous_first_requests_make_one_session_and_one_server() {
    let (harness, host) = hosted(durable()).await;
    host.hold_starts(true);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let request = harness.routed(Method::POST, "ann/x", "a", &rpc("7", "ping"));
            let registry = Arc::clone(&harness.registry);
            in_background(async move { registry.serve(request).await.response })
        })
        .collect();
    run_ready_tasks().await;
    assert_eq!(host.conversation_count(), 1);
    host.hold_starts(false);
    for call in calls {
        let response = call.output().await;
        assert_eq!((response.status(), session_id(&response)), (StatusCode::OK, None));
        assert_eq!(body_text(response).await, "server 1");
    }
    assert_eq!((host.conversation_count(), host.start_count()), (1, 1));
    assert_eq!(
        harness.registry.stats(),
        Stats {
            attached: 1,
            ..Stats::default()
        }
    );
    assert_eq!(harness.event_count(Event::Opened), 1);
}

#[tokio::test(start_paused = true)]
async fn names_and_grants_have_sessions_of_their_own() {
    let (harness, host) = hosted(durable()).await;
    for (who, route) in [("ann/x", "a"), ("ann/x", "b"), ("ann/y", "a"), ("bob/x", "a")] {
        for _ in 0..2 {
            assert_eq!(harness.call(who, route).await, (200, "server 1".to_owned()));
        }
        let snapshot = host.last_conversation().snapshot().expect("a snapshot");
        assert_eq!(snapshot.0, route);
    }
    assert_eq!(host.conversation_count(), 4);
    assert_eq!(harness.registry.sessions_of_grant(&GrantId("ann/x".into())), 2);
}

#[tokio::test(start_paused = true)]
async fn session_id_that_has_no_meaning_is_ignored() {
    let (harness, host) = hosted(durable()).await;
    for ids in [&["unknown"][..], &["one", "two"]] {
        let mut request = harness.routed(Method::POST, "ann/x", "a", &rpc("7", "ping"));
        for id in ids {
            let id = id.parse().expect("a header value");
            request.headers_mut().append("mcp-session-id", id);
        }
        assert_eq!(harness.registry.serve(request).await.response.status(), StatusCode::OK);
    }
    assert_eq!(host.conversation_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn answer_of_the_host_is_sent() {
    let (harness, host) = hosted(durable()).await;
    assert_eq!(harness.call("ann/x", "reply").await.0, 418);
    assert_eq!(host.conversation_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_session_delete_and_get_are_405() {
    let (harness, host) = hosted(durable()).await;
    for _ in 0..2 {
        for route in ["a", "last", "last-passive", "tagged 00000000 a"] {
            let deletion = harness.send_routed(Method::DELETE, "ann/x", route, "").await;
            assert_eq!(deletion.status(), StatusCode::METHOD_NOT_ALLOWED, "{route}");
            assert_eq!(deletion.headers()["allow"], "POST");
        }
        for route in ["b", "last", "last-passive", "tagged 00000000 b"] {
            let stream = harness.send_routed(Method::GET, "ann/x", route, "").await;
            assert_eq!(stream.status(), StatusCode::METHOD_NOT_ALLOWED, "{route}");
        }
        // With a session of another name it is the same.
        assert_eq!(harness.call("ann/x", "a").await.0, 200);
    }
    let stream = harness.send_routed(Method::GET, "ann/x", "a", "").await;
    assert_eq!(stream.status(), StatusCode::OK);
    assert_eq!(host.conversation_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn fifth_session_of_a_grant_ends_the_idle_one_that_was_used_least_recently() {
    let (harness, host) = hosted(durable()).await;
    for name in ["a", "b", "c", "d"] {
        assert_eq!(harness.call("ann/x", name).await.0, 200);
        sleep(Duration::from_secs(1)).await;
    }
    let busy = ["b", "c", "d", "a"];
    // In use since long ago.
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.call("bob/x", "e").await.0, 200);
    assert_eq!(
        harness.event_count(Event::Ended(EndReason::Evicted)),
        0,
        "of another grant"
    );
    assert_eq!(harness.call("ann/x", "e").await.0, 200);
    assert_eq!(harness.event_count(Event::Ended(EndReason::Evicted)), 1);
    assert_eq!(harness.registry.sessions_of_grant(&GrantId("ann/x".into())), 4);
    let made = host.conversation_count();
    for name in &busy[1..] {
        assert_eq!(harness.call("ann/x", name).await.0, 200);
    }
    assert_eq!(host.conversation_count(), made, "only one has ended");
    assert_eq!(harness.call("ann/x", busy[0]).await, (200, "server 1".to_owned()));
    assert_eq!(host.conversation_count(), made + 1);
}

#[tokio::test(start_paused = true)]
async fn session_in_use_is_not_ended_for_another() {
    let (harness, host) = hosted(Config {
        max_implicit_sessions_per_grant: 1,
        ..durable()
    })
    .await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    let conversation = host.last_conversation();
    conversation.begin_work(1);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.call("ann/x", "b").await.0, 200);
    let held = || harness.registry.sessions_of_grant(&GrantId("ann/x".into()));
    assert_eq!(held(), 2);
    conversation.end_work(1);
    assert_eq!(harness.call("ann/x", "c").await.0, 200);
    assert_eq!(held(), 1);
}

#[tokio::test(start_paused = true)]
async fn implicit_sessions_count_for_the_quotas() {
    let (harness, host) = hosted(Config {
        max_sessions_per_user: 2,
        ..durable()
    })
    .await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    let id = session_id(&harness.initialize("ann/x").await).expect("an id");
    assert_eq!(harness.call("ann/y", "a").await.0, 429);
    assert_eq!(
        harness.initialize("ann/x").await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    sleep(Duration::from_secs(20 * 60)).await;
    // Both are dormant. The implicit one was used last.
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    assert_eq!(harness.call("ann/y", "a").await.0, 200);
    harness.must_be(404, "ann/x", &id).await;
    assert_eq!(host.conversation_count(), 4, "the dormant ones were put down");
}

#[tokio::test(start_paused = true)]
async fn session_that_has_ended_is_made_again_and_leaves_no_ended_id() {
    let (harness, host) = hosted(durable()).await;
    let ends = async || {
        let mut request = harness.routed(Method::POST, "ann/x", "a", &rpc("7", "ping"));
        let header = "yes".parse().expect("a header value");
        request.headers_mut().insert("ends", header);
        harness.registry.serve(request).await.response.status()
    };
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lock(&harness.records.rows).len(), 1);
    assert_eq!(ends().await, StatusCode::NOT_FOUND);
    assert_eq!(harness.call("ann/x", "a").await, (200, "server 1".to_owned()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        lock(&harness.records.rows).len(),
        1,
        "the new one is saved behind the end"
    );
    sleep(RETAIN + Duration::from_secs(60)).await;
    assert_eq!(harness.registry.stats(), Stats::default(), "its time is over");
    assert!(lock(&harness.records.rows).is_empty() && lock(&harness.records.endings).is_empty());
    assert_eq!(harness.call("ann/x", "a").await, (200, "server 1".to_owned()));
    assert_eq!(host.conversation_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn call_whose_session_ends_while_it_waits_is_served_by_the_next_one() {
    let (harness, host) = hosted(durable()).await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    host.last_conversation().servers()[0].die();
    run_ready_tasks().await;
    host.script([StartOutcome::Unfit]);
    assert_eq!(harness.call("ann/x", "a").await, (200, "server 1".to_owned()));
    assert_eq!(harness.event_count(Event::Ended(EndReason::Unrevivable)), 1);
    assert_eq!(host.conversation_count(), 2);
    // Only once: the client may try again later.
    host.last_conversation().servers()[0].die();
    run_ready_tasks().await;
    host.script([StartOutcome::Unfit, StartOutcome::Unfit]);
    let (status, body) = harness.call("ann/x", "a").await;
    assert!(status == 503 && body.contains(r#""id":7"#), "{body}");
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn first_start_that_fails_is_reported_and_retried_by_the_next_call() {
    let (harness, host) = hosted(durable()).await;
    harness
        .credentials("ann")
        .set_refresh_outcome(RefreshOutcome::Transient);
    host.script([StartOutcome::Failed]);
    let (status, body) = harness.call("ann/x", "a").await;
    assert!(status == 502 && body.contains(r#""id":7"#), "{body}");
    assert_eq!(harness.registry.stats().attached, 0);
    assert_eq!(harness.call("ann/x", "a").await, (200, "server 2".to_owned()));
    assert_eq!(host.conversation_count(), 1);
    assert_eq!(harness.call("bob/x", "unusable").await.0, 500);
    assert_eq!(harness.registry.sessions_of_grant(&GrantId("bob/x".into())), 0);
}

#[tokio::test(start_paused = true)]
async fn failing_starts_of_the_user_delay_a_new_session() {
    let (harness, host) = hosted(durable()).await;
    harness
        .credentials("ann")
        .set_refresh_outcome(RefreshOutcome::Transient);
    host.script([StartOutcome::Failed; 2]);
    assert_eq!(harness.call("ann/x", "a").await.0, 502);
    assert_eq!(harness.call("ann/x", "a").await.0, 502);
    assert_eq!(harness.call("ann/x", "b").await.0, 503);
    assert_eq!((host.conversation_count(), host.start_count()), (1, 2));
    sleep(durable().backoff).await;
    assert_eq!(harness.call("ann/x", "b").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn restart_keeps_an_implicit_session() {
    let (mut harness, host) = hosted(durable()).await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    host.last_conversation().set("settings");
    harness.registry.stop().await;
    assert!(harness.records.only().0.implicit);
    harness.restart().await;
    assert_eq!(harness.registry.stats().dormant, 1);
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    assert_eq!(host.last_conversation().snapshot().expect("a snapshot").0, "settings");
    assert_eq!(harness.registry.stats().attached, 1);
    // One whose time is over while the registry is down leaves nothing.
    harness.registry.stop().await;
    sleep(RETAIN).await;
    harness.restart().await;
    sleep(Duration::from_secs(1)).await;
    assert!(lock(&harness.records.rows).is_empty() && lock(&harness.records.endings).is_empty());
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    assert_eq!(host.last_conversation().snapshot().expect("a snapshot").0, "a");
}

#[tokio::test(start_paused = true)]
async fn conversation_of_a_dormant_session_is_made_from_its_record() {
    let (harness, host) = hosted(durable()).await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    host.last_conversation().set("settings");
    sleep(Duration::from_secs(30 * 60)).await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    assert_eq!(host.conversation_count(), 2);
    assert_eq!(host.last_conversation().snapshot().expect("a snapshot").0, "settings");
    // Another registry has removed the record: the session is made again.
    sleep(Duration::from_secs(30 * 60)).await;
    lock(&harness.records.rows).clear();
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    assert_eq!(host.last_conversation().snapshot().expect("a snapshot").0, "a");
}

#[tokio::test(start_paused = true)]
async fn registries_on_the_same_records_share_an_implicit_session() {
    let (mut harness, host) = hosted(Config {
        max_implicit_sessions_per_grant: 1,
        ..durable()
    })
    .await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    sleep(durable().write_behind * 2).await;
    *lock(&harness.records.shared) = true;
    let first = Arc::clone(&harness.registry);
    harness.restart().await;
    // The second evicts the session, which the first one serves.
    assert_eq!(harness.call("ann/x", "b").await.0, 200);
    sleep(durable().write_behind * 2).await;
    assert_eq!(lock(&harness.records.rows).len(), 2);
    let second = std::mem::replace(&mut harness.registry, first);
    assert_eq!(harness.call("ann/x", "a").await, (200, "server 1".to_owned()));
    // Both have it again, and each may end it without an end for the other.
    harness.registry = second;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    sleep(durable().write_behind * 2).await;
    assert!(lock(&harness.records.endings).is_empty());
    assert_eq!(host.conversation_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn revocation_ends_implicit_sessions_and_their_records() {
    let (harness, host) = hosted(durable()).await;
    for (who, whole_user) in [("ann/x", false), ("bob/x", true)] {
        for name in ["a", "b"] {
            assert_eq!(harness.call(who, name).await.0, 200);
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(lock(&harness.records.rows).len(), 2);
        let conversation = host.last_conversation();
        if whole_user {
            harness.registry.end_user(&UserId("bob".into())).await;
        } else {
            harness.registry.end_grant(&GrantId(who.into())).await;
        }
        assert_eq!(harness.registry.stats(), Stats::default());
        assert!(conversation.servers()[0].has_exited());
        sleep(Duration::from_secs(1)).await;
        assert!(lock(&harness.records.rows).is_empty() && lock(&harness.records.endings).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_was_authenticated_before_a_revocation_makes_no_session() {
    let (harness, _host) = hosted(durable()).await;
    for route in ["a", "last"] {
        let mut request = harness.routed(Method::POST, "ann/x", route, &rpc("7", "ping"));
        request.extensions_mut().insert(AuthenticatedAt(Instant::now()));
        harness.registry.end_grant(&GrantId("ann/x".into())).await;
        let served = harness.registry.serve(request).await;
        assert!(served.response.status() == StatusCode::UNAUTHORIZED && served.sign_in_required);
        assert_eq!(harness.registry.stats(), Stats::default());
    }
}

#[tokio::test(start_paused = true)]
async fn tag_selects_a_session_of_the_own_grant_only() {
    let (harness, host) = hosted(durable()).await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    sleep(Duration::from_secs(1)).await;
    let tagged = format!("tagged {} reply", only_tag(&harness));
    for (who, status) in [("ann/x", 200), ("ann/y", 418), ("bob/x", 418)] {
        assert_eq!(harness.call(who, &tagged).await.0, status, "{who}");
    }
    assert_eq!(harness.call("ann/x", "tagged 00000000 reply").await.0, 418);
    assert_eq!(harness.call("ann/x", "tagged 00000000 a").await.0, 200);
    assert_eq!(host.conversation_count(), 1);
    // A session with an id has a tag too, and its answers no id.
    let id = session_id(&harness.initialize("bob/x").await).expect("an id");
    let rows = lock(&harness.records.rows).clone();
    let opened = rows.values().find(|(record, _)| record.user == UserId("bob".into()));
    let tag = hex::encode(&opened.expect("a record").0.key.0[..4]);
    let response = harness
        .send_routed(Method::POST, "bob/x", &format!("tagged {tag} reply"), &rpc("7", "ping"))
        .await;
    assert_eq!((response.status(), session_id(&response)), (StatusCode::OK, None));
    harness.delete("bob/x", &id).await;
    assert_eq!(harness.call("bob/x", &format!("tagged {tag} reply")).await.0, 418);
}

#[tokio::test(start_paused = true)]
async fn without_retention_a_session_ends_with_its_server_and_is_made_again() {
    let (harness, host) = hosted(Config::default()).await;
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    host.last_conversation().servers()[0].die();
    run_ready_tasks().await;
    assert_eq!(harness.registry.stats(), Stats::default());
    assert_eq!(harness.call("ann/x", "a").await, (200, "server 1".to_owned()));
    sleep(Duration::from_secs(20 * 60)).await;
    assert_eq!(harness.registry.stats(), Stats::default());
    assert_eq!(harness.call("ann/x", "a").await.0, 200);
    assert_eq!(host.conversation_count(), 3);
    assert_eq!(harness.records.initialize_reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn stopped_registry_makes_no_session() {
    let (harness, host) = hosted(durable()).await;
    harness.registry.stop().await;
    assert_eq!(harness.call("ann/x", "a").await.0, 503);
    assert_eq!(host.conversation_count(), 0);
}
