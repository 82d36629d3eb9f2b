//! Floods of what the store has to write: they end in refusals that say for how long, and others do not notice.

use http::StatusCode;
use oauth::sqlite::SqliteStore;
use testkit::Browser;

use super::{Attacker, REDIRECT, path_of, prepared};
use crate::harness::{Harness, login_of, password};

/// Ceilings that a test can reach: fifty a minute for all, ten for one.
const LOW: [(&str, &str); 2] = [("oauth.sign_ins_per_minute", "50"), ("oauth.tokens_per_minute", "50")];

/// Someone who signs in and then asks for tokens without end meets the ceiling of a user: others are issued theirs.
#[tokio::test]
async fn a_user_who_asks_for_tokens_without_end_locks_out_nobody() {
    let harness = Harness::new(&LOW).await;
    let bob = harness.in_session("bob").await;
    let alice = harness.signed_in("alice").await;
    let attacker = Attacker::of(&harness);
    let (id, mut token) = (alice.client_id().unwrap(), alice.refresh_token().unwrap());
    let mut issued = 0;
    let slowed = loop {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", &id),
            ("refresh_token", &token),
        ];
        let reply = attacker.post_form("/oauth/token", &fields).await;
        if reply.status != StatusCode::OK {
            break reply;
        }
        issued += 1;
        assert!(issued < 50, "there is a limit");
        token = reply.json()["refresh_token"].as_str().unwrap().to_owned();
    };
    assert_eq!(slowed.status, StatusCode::TOO_MANY_REQUESTS, "{}", slowed.body);
    assert_eq!(slowed.error(), "temporarily_unavailable");
    assert!(slowed.header("retry-after").parse::<u64>().unwrap() > 0);
    bob.refresh().await.unwrap();
    assert_eq!(login_of(&bob).await, "bob");
}

/// When everybody together has had what may be issued, guesses are still refused for what they are: they are not counted there.
#[tokio::test]
async fn a_guess_takes_nothing_from_the_ceiling_of_all_and_does_not_meet_it() {
    let harness = Harness::new(&[("oauth.tokens_per_minute", "10")]).await;
    let alice = harness.signed_in("alice").await;
    let attacker = Attacker::of(&harness);
    let id = alice.client_id().unwrap();
    let ask = async |token: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", &*id),
            ("refresh_token", token),
        ];
        attacker.post_form("/oauth/token", &fields).await
    };
    for _ in 0..20 {
        let guess = ask("fmb_rt_guess").await;
        assert_eq!(
            (guess.status, guess.error()),
            (StatusCode::BAD_REQUEST, "invalid_grant".to_owned())
        );
    }
    // One has been issued at the sign-in.
    let mut token = alice.refresh_token().unwrap();
    for _ in 0..9 {
        let reply = ask(&token).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        token = reply.json()["refresh_token"].as_str().unwrap().to_owned();
    }
    assert_ne!(ask(&token).await.status, StatusCode::OK);
    let guess = ask("fmb_rt_guess").await;
    assert_eq!(
        (guess.status, guess.error()),
        (StatusCode::BAD_REQUEST, "invalid_grant".to_owned())
    );
}

/// Sign-ins that begin and go nowhere, in the name of a client that an attacker has registered.
#[tokio::test]
async fn sign_ins_that_go_nowhere_keep_no_other_client_from_signing_in() {
    let harness = Harness::new(&LOW).await;
    let bob = harness.in_session("bob").await;
    let flooding = prepared(&harness, "flooding", REDIRECT).await;
    let attacker = Attacker::of(&harness);
    let mut refused = None;
    for _ in 0..50 {
        let mut browser = Browser::new();
        let page = browser.open(&flooding.authorize_url().unwrap()).await.unwrap();
        let approved = browser
            .submit(&page, &page.forms()[0], &[("decision", "approve")])
            .await
            .unwrap();
        if approved.status != StatusCode::SEE_OTHER {
            refused = Some(approved);
            break;
        }
    }
    let refused = refused.expect("there is a limit");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.get("retry-after").is_some());
    // States that are made up cost a look, however many: the only writer is held here, and nobody waits for it.
    let store = SqliteStore::open(harness.broker.directory().join("broker.db"))
        .await
        .unwrap();
    let writing = store.writer().begin_with("BEGIN IMMEDIATE").await.unwrap();
    for number in 0..100 {
        let path = format!("/oauth/callback?state=made-up-{number}&code=x");
        assert!(attacker.get(&path, &[]).await.status.is_client_error());
    }
    drop(writing);
    store.close().await;
    let alice = harness.client();
    alice
        .sign_in(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    assert_eq!(login_of(&bob).await, "bob");
    // The page itself is there for the flooded client too: only what is written is refused.
    let page = attacker.get(&path_of(&flooding.authorize_url().unwrap()), &[]).await;
    assert_eq!(page.status, StatusCode::OK);
}
