//! Calls that wait for a server, and the steps of the registry that answer them: attach, refuse and
//! close. The scripted conversation checks that servers are attached in order and none after the
//! end; a call that nobody answers is a deadlock, which the scheduler reports.

use std::sync::Arc;

use shuttle::future::{JoinHandle, spawn, yield_now};

use super::{
    explore,
    harness::{Harness, detach_idle, durable},
};
use crate::{
    Stats,
    ports::{Conversation as _, EndReason},
    records::write_behind::put_down,
    servers::rotate,
    state::{EndCondition, Session},
    testing::{ConversationCall, RefreshOutcome, ScriptedConversation, ScriptedHost, StartOutcome},
};

/// A registry with a scripted host and an open session.
async fn open() -> (Harness, Arc<ScriptedHost>, String, Arc<Session>) {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(durable(), &host);
    let (id, session) = harness.open().await;
    (harness, host, id, session)
}

fn rotate(harness: &Harness, session: &Arc<Session>) -> JoinHandle<()> {
    let (state, session) = (Arc::clone(harness.state()), Arc::clone(session));
    spawn(async move {
        if let Some(server) = session.server() {
            rotate::rotate_session(&state, &session, &server).await;
        }
    })
}

fn running(conversation: &ScriptedConversation) -> usize {
    let servers = conversation.servers();
    servers.iter().filter(|server| !server.has_exited()).count()
}

/// Stops the registry, and checks that nothing is left.
async fn stop(harness: &Harness, conversation: &ScriptedConversation) {
    harness.registry.stop().await;
    assert_eq!((running(conversation), harness.registry.stats()), (0, Stats::default()));
}

#[test]
fn every_call_is_served_while_servers_are_replaced_and_die() {
    explore(async || {
        let (harness, host, id, session) = open().await;
        let conversation = host.last_conversation();
        let rotation = rotate(&harness, &session);
        let calls: Vec<_> = (0..2).map(|_| harness.send(harness.ping(&id))).collect();
        let first = conversation.servers().remove(0);
        let dying = spawn(async move { first.die() });
        for call in calls {
            assert_eq!(call.await.expect("no panic").0, 200);
        }
        rotation.await.expect("no panic");
        dying.await.expect("no panic");
        stop(&harness, &conversation).await;
    });
}

/// Calls come while a wake fails. None is left behind, and each wake starts one server.
#[test]
fn every_call_is_served_or_refused_while_starts_fail() {
    explore(async || {
        let (harness, host, id, session) = open().await;
        harness.credentials.set_refresh_outcome(RefreshOutcome::Transient);
        let conversation = host.last_conversation();
        detach_idle(harness.state(), &session);
        host.script([StartOutcome::Failed]);
        let calls: Vec<_> = (0..3).map(|_| harness.send(harness.ping(&id))).collect();
        let mut served = 0;
        for call in calls {
            let status = call.await.expect("no panic").0;
            assert!(matches!(status, 200 | 502), "{status}");
            served += usize::from(status == 200);
        }
        assert!(served < 3);
        assert_eq!(harness.serve(harness.ping(&id)).await.0, 200);
        assert_eq!(
            host.start_count(),
            3,
            "the opening, the failure, and one that serves the others"
        );
        stop(&harness, &conversation).await;
    });
}

#[test]
fn calls_that_wait_end_with_their_session() {
    for reason in [EndReason::Deleted, EndReason::Revoked] {
        explore(move || async move {
            let (harness, host, id, session) = open().await;
            let conversation = host.last_conversation();
            detach_idle(harness.state(), &session);
            let calls: Vec<_> = (0..2).map(|_| harness.send(harness.ping(&id))).collect();
            let rotation = rotate(&harness, &session);
            let (state, ended) = (Arc::clone(harness.state()), Arc::clone(&session));
            let ending = spawn(async move { state.end(&ended, reason, EndCondition::Always) });
            for call in calls {
                let status = call.await.expect("no panic").0;
                assert!(matches!(status, 200 | 401 | 404), "{status}");
            }
            assert!(ending.await.expect("no panic"));
            rotation.await.expect("no panic");
            session.gone.cancelled().await;
            assert_eq!(
                (running(&conversation), harness.registry.stats()),
                (0, Stats::default())
            );
            let closed = |call: &ConversationCall| matches!(call, ConversationCall::Close(_));
            assert_eq!(conversation.take_calls().iter().filter(|call| closed(call)).count(), 1);
            stop(&harness, &conversation).await;
        });
    }
}

#[test]
fn misfit_ends_the_session_for_every_call() {
    explore(async || {
        let (harness, host, id, session) = open().await;
        let conversation = host.last_conversation();
        detach_idle(harness.state(), &session);
        host.script([StartOutcome::Unfit]);
        let calls: Vec<_> = (0..2).map(|_| harness.send(harness.ping(&id))).collect();
        for call in calls {
            assert_eq!(call.await.expect("no panic").0, 404);
        }
        assert_eq!(harness.registry.stats().dormant, 0);
        stop(&harness, &conversation).await;
    });
}

/// The first server dies before it has answered, while the grant ends.
#[test]
fn opening_is_repeated_or_ends_with_its_grant() {
    explore(async || {
        let host = ScriptedHost::new();
        host.script([StartOutcome::Dies]);
        let harness = Harness::hosted(durable(), &host);
        let opening = harness.send(harness.initialize());
        let revocation = harness.revoke();
        let (status, id) = opening.await.expect("no panic");
        revocation.await.expect("no panic");
        // A revocation before the session is in the table does not meet it.
        assert!(matches!(status, 200 | 401), "{status}");
        assert_eq!(id.is_some(), status == 200);
        harness.registry.stop().await;
        assert_eq!(harness.registry.stats(), Stats::default());
    });
}

/// Two rotations, and work that ends in between.
#[test]
fn session_has_at_most_two_servers_and_a_rotation_that_waits_is_due_again() {
    explore(async || {
        let (harness, host, id, session) = open().await;
        let conversation = host.last_conversation();
        conversation.begin_work(1);
        rotate(&harness, &session).await.expect("no panic");
        assert_eq!(running(&conversation), 2);
        let second = rotate(&harness, &session);
        let working = Arc::clone(&conversation);
        let ending = spawn(async move { working.end_work(1) });
        let call = harness.send(harness.ping(&id));
        assert_eq!(call.await.expect("no panic").0, 200);
        second.await.expect("no panic");
        ending.await.expect("no panic");
        while session.lock().retired.is_some() {
            yield_now().await;
        }
        let due = harness.state().rotation_deadlines.of(&session.key);
        let moved = conversation.servers().len() == 3;
        assert!(moved || due.is_some_and(|due| due <= tokio::time::Instant::now()));
        assert_eq!(running(&conversation), 1);
        stop(&harness, &conversation).await;
    });
}

/// A conversation is dropped to be made again from the record while calls come.
#[test]
fn conversation_is_put_down_only_between_calls() {
    explore(async || {
        let (harness, host, id, session) = open().await;
        detach_idle(harness.state(), &session);
        {
            let mut locked = session.lock();
            let revision = host.last_conversation().revision();
            locked.written.as_mut().expect("a record").revision = Some(revision);
        }
        let put = Arc::clone(&session);
        let putting = spawn(async move { put_down(&put) });
        let calls: Vec<_> = (0..2).map(|_| harness.send(harness.ping(&id))).collect();
        for call in calls {
            assert_eq!(call.await.expect("no panic").0, 200);
        }
        putting.await.expect("no panic");
        assert!(host.conversation_count() <= 2 && host.start_count() <= 3);
        stop(&harness, &host.last_conversation()).await;
    });
}
