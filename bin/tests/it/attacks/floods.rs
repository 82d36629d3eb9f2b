//! Floods of requests that write to the store: rate limits reject them with `Retry-After`, and
//! other users are unaffected.

use http::StatusCode;
use oauth::sqlite::SqliteStore;
use testkit::Browser;

use super::{Attacker, REDIRECT, Reply, path_and_query, registered_client};
use crate::harness::{Harness, login_of, messages::refresh_form, sign_in};

/// Rate limits that a test can reach: fifty a minute for all users, which makes ten for one.
const LOW_RATE_LIMITS: [(&str, &str); 2] = [("oauth.sign_ins_per_minute", "50"), ("oauth.tokens_per_minute", "50")];

#[track_caller]
fn assert_invalid_grant(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.error()),
        (StatusCode::BAD_REQUEST, "invalid_grant".to_owned())
    );
}

/// A user who requests tokens without end reaches the rate limit of a user. Others still get
/// tokens.
#[tokio::test]
async fn flood_of_token_requests_by_one_user_affects_no_other_user() {
    let harness = Harness::new(&LOW_RATE_LIMITS).await;
    let bob = harness.in_session("bob").await;
    let alice = harness.signed_in("alice").await;
    let attacker = Attacker::new(&harness);
    let (id, mut token) = (alice.client_id().unwrap(), alice.refresh_token().unwrap());
    let mut issued = 0;
    let rejected = loop {
        let reply = attacker.post_form("/oauth/token", &refresh_form(&token, &id)).await;
        if reply.status != StatusCode::OK {
            break reply;
        }
        issued += 1;
        assert!(issued < 50, "no rate limit applies");
        token = reply.json()["refresh_token"].as_str().unwrap().to_owned();
    };
    assert_eq!(rejected.status, StatusCode::TOO_MANY_REQUESTS, "{}", rejected.body);
    assert_eq!(rejected.error(), "temporarily_unavailable");
    assert!(rejected.header("retry-after").parse::<u64>().unwrap() > 0);
    bob.refresh().await.unwrap();
    assert_eq!(login_of(&bob).await, "bob");
}

/// Invalid refresh tokens do not count against the rate limit for all users, and once it is reached
/// they are still rejected as invalid.
#[tokio::test]
async fn invalid_refresh_tokens_do_not_count_against_the_rate_limit_for_all_users() {
    let harness = Harness::new(&[("oauth.tokens_per_minute", "10")]).await;
    let alice = harness.signed_in("alice").await;
    let attacker = Attacker::new(&harness);
    let id = alice.client_id().unwrap();
    let refresh = async |token: &str| attacker.post_form("/oauth/token", &refresh_form(token, &id)).await;
    for _ in 0..20 {
        assert_invalid_grant(&refresh("fmb_rt_guess").await);
    }
    // The sign-in has used the first token of ten.
    let mut token = alice.refresh_token().unwrap();
    for _ in 0..9 {
        let reply = refresh(&token).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        token = reply.json()["refresh_token"].as_str().unwrap().to_owned();
    }
    assert_ne!(refresh(&token).await.status, StatusCode::OK);
    assert_invalid_grant(&refresh("fmb_rt_guess").await);
}

/// A client that an attacker registered begins sign-ins and never finishes them.
#[tokio::test]
async fn flood_of_unfinished_sign_ins_does_not_block_other_clients() {
    let harness = Harness::new(&LOW_RATE_LIMITS).await;
    let bob = harness.in_session("bob").await;
    let flooding = registered_client(&harness, "flooding", REDIRECT).await;
    let attacker = Attacker::new(&harness);
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
    let refused = refused.expect("sign-ins are limited");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.get("retry-after").is_some());
    // Made-up states cost only a read: this test holds the store's only writer, and no request
    // waits for it.
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
    sign_in(&alice, "alice").await;
    assert_eq!(login_of(&bob).await, "bob");
    // The flooding client still gets the consent page: only requests that write are rejected.
    let page = attacker
        .get(&path_and_query(&flooding.authorize_url().unwrap()), &[])
        .await;
    assert_eq!(page.status, StatusCode::OK);
}
