//! First requests of an implicit session, and its end. No client has an id of it, so its end is not
//! seen: the request is served by the session that is made in its place.

use std::sync::Arc;

use http::Method;
use shuttle::future::spawn;

use super::{
    explore,
    harness::{Harness, durable},
};
use crate::{
    Config,
    ports::{EndReason, GrantId},
    testing::ScriptedHost,
};

const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;

fn hosted(config: Config) -> (Harness, Arc<ScriptedHost>) {
    let host = ScriptedHost::new();
    (Harness::hosted(config, &host), host)
}

#[test]
fn first_requests_make_one_session_and_are_served_whether_it_ends_or_not() {
    for reason in [EndReason::Evicted, EndReason::Revoked] {
        explore(move || async move {
            let (harness, host) = hosted(durable());
            let calls: Vec<_> = (0..2)
                .map(|_| harness.send(harness.routed(Method::POST, "a", PING)))
                .collect();
            let state = Arc::clone(harness.state());
            let ending = spawn(async move { state.end_where(reason, |session| session.implicit).len() });
            for call in calls {
                let (status, id) = call.await.expect("no panic");
                let revoked = reason == EndReason::Revoked && status == 401;
                assert!((status == 200 || revoked) && id.is_none(), "{status}");
            }
            let ended = ending.await.expect("no panic");
            assert!(host.conversation_count() <= ended + 1);
            let stats = harness.quiesce().await;
            let unseen = host.conversation_count() - ended;
            assert_eq!((stats.attached, stats.dormant), (unseen, 0));
            harness.stop().await;
        });
    }
}

/// Each request needs the place of the other. One that has lost its session twice gives up.
#[test]
fn only_idle_sessions_make_room_when_first_requests_race() {
    explore(async || {
        let (harness, _host) = hosted(Config {
            max_implicit_sessions_per_grant: 1,
            ..durable()
        });
        let calls = ["a", "b"].map(|route| harness.send(harness.routed(Method::POST, route, PING)));
        let mut served = 0;
        for call in calls {
            let status = call.await.expect("no panic").0;
            assert!(matches!(status, 200 | 503), "{status}");
            served += usize::from(status == 200);
        }
        assert!(served >= 1);
        let grant = GrantId(Arc::clone(&harness.caller.grant.0));
        assert!((1..=2).contains(&harness.registry.sessions_of_grant(&grant)));
        harness.quiesce().await;
        harness.stop().await;
    });
}

#[test]
fn requests_of_a_client_without_its_id_are_served_while_its_session_is_deleted() {
    explore(async || {
        let (harness, host) = hosted(durable());
        let (id, _session) = harness.open().await;
        let calls: Vec<_> = (0..2)
            .map(|_| harness.send(harness.routed(Method::POST, "last", PING)))
            .collect();
        let deletion = harness.send(harness.delete(&id));
        for call in calls {
            let (status, id) = call.await.expect("no panic");
            assert_eq!((status, id), (200, None));
        }
        assert_eq!(deletion.await.expect("no panic").0, 204);
        assert!(host.conversation_count() <= 2);
        harness.quiesce().await;
        harness.stop().await;
    });
}
