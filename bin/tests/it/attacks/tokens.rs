//! The token endpoint and revocation: stolen and replayed codes and tokens, PKCE, other resources.

use http::{Method, StatusCode};
use testkit::{Browser, Client};

use super::{Attacker, REDIRECT, Reply, path_and_query, query_parameter, registered_client, with_parameter};
use crate::harness::{
    Harness, assert_unauthorized, login_of,
    messages::{initialize_request, refresh_form},
    open_session, password,
    raw_http::RawConnection,
};

/// A client with an unused authorization code.
async fn with_code(harness: &Harness, name: &str) -> Client {
    let client = registered_client(harness, name, REDIRECT).await;
    client
        .authorize(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    client
}

/// The form fields of a valid exchange of a code.
fn exchange_form<'a>(code: &'a str, verifier: &'a str, client_id: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", verifier),
        ("client_id", client_id),
    ]
}

async fn assert_refused(client: &Client, fields: &[(&str, &str)], error: &str) {
    let answer = client.token_request(fields).await.unwrap();
    assert!(answer.status.is_client_error(), "{}", answer.text());
    assert_eq!(answer.json()["error"], error, "{fields:?}");
    assert!(!answer.text().contains("fmb_"), "an error answer holds no token");
}

/// Checks that an authorization request was rejected: with an error redirect to the client, or with
/// an error page.
#[track_caller]
fn assert_authorization_refused(reply: &Reply, error: &str) {
    assert!(!reply.body.contains("\"decision\""), "the page asks for consent");
    if reply.status.is_redirection() {
        let redirect: url::Url = reply.header("location").parse().unwrap();
        assert!(redirect.as_str().starts_with(REDIRECT), "{redirect}");
        assert_eq!(
            query_parameter(&redirect, "error").as_deref(),
            Some(error),
            "{redirect}"
        );
        assert_eq!(query_parameter(&redirect, "code"), None);
    } else {
        assert!(reply.status.is_client_error(), "{}", reply.status);
    }
}

/// RFC 6749 section 4.1.2: a code that is used twice is rejected, and the tokens issued for it are
/// revoked.
#[tokio::test]
async fn replayed_code_revokes_its_tokens() {
    let harness = Harness::new(&[]).await;
    let client = with_code(&harness, "one").await;
    let (code, verifier) = (client.code().unwrap(), client.verifier().unwrap());
    client.exchange().await.unwrap();
    open_session(&client).await;
    let children = harness.broker.children().unwrap();
    assert_eq!(children.len(), 1);

    let id = client.client_id().unwrap();
    assert_refused(&client, &exchange_form(&code, &verifier, &id), "invalid_grant").await;
    assert_unauthorized(&client).await;
    children[0].exited().await.unwrap();
    let refresh = client.refresh_token().unwrap();
    assert_refused(&client, &refresh_form(&refresh, &id), "invalid_grant").await;
}

/// RFC 6749 section 4.1.3, RFC 7636 section 4.6: a code is bound to its client, redirect URI and
/// verifier.
#[tokio::test]
async fn stolen_code_is_rejected_with_another_client_redirect_uri_or_verifier() {
    let harness = Harness::new(&[]).await;
    let thief = registered_client(&harness, "thief", REDIRECT).await;
    let thief_id = thief.client_id().unwrap();
    let wrong_verifier = "w".repeat(43);
    for changed in [
        ("client_id", Some(thief_id.as_str())),
        ("redirect_uri", Some("https://client.example/callback/")),
        ("redirect_uri", Some("https://evil.example/callback")),
        ("code_verifier", Some(wrong_verifier.as_str())),
        ("code_verifier", Some("")),
        ("code_verifier", None),
    ] {
        let client = with_code(&harness, "one").await;
        let (code, verifier, id) = (
            client.code().unwrap(),
            client.verifier().unwrap(),
            client.client_id().unwrap(),
        );
        let fields: Vec<(&str, &str)> = exchange_form(&code, &verifier, &id)
            .into_iter()
            .filter_map(|(name, value)| {
                if name == changed.0 {
                    Some((name, changed.1?))
                } else {
                    Some((name, value))
                }
            })
            .collect();
        let answer = client.token_request(&fields).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{changed:?}: {}", answer.text());
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(
            ["invalid_grant", "invalid_request"].contains(&error.as_str()),
            "{changed:?}: {error}"
        );
    }
}

/// CVE-2025-4144, OAuth 2.1 section 7.5.1: a missing or malformed challenge, and the method
/// `plain`.
#[tokio::test]
async fn pkce_cannot_be_omitted_or_downgraded() {
    let harness = Harness::new(&[]).await;
    let client = registered_client(&harness, "one", REDIRECT).await;
    let good = client.authorize_url().unwrap();
    let attacker = Attacker::new(&harness);
    for (name, value) in [
        ("code_challenge", None),
        ("code_challenge", Some("")),
        ("code_challenge", Some("short")),
        ("code_challenge_method", None),
        ("code_challenge_method", Some("plain")),
        ("code_challenge_method", Some("s256")),
    ] {
        let reply = attacker
            .get(&path_and_query(&with_parameter(&good, name, value)), &[])
            .await;
        assert_authorization_refused(&reply, "invalid_request");
    }
    // A repeated parameter is rejected (RFC 6749 section 3.1).
    let mut twice = good.clone();
    twice.query_pairs_mut().append_pair("code_challenge_method", "plain");
    let reply = attacker.get(&path_and_query(&twice), &[]).await;
    assert!(!reply.body.contains("decision"), "the page asks for consent");
}

/// RFC 8707 section 2: the broker issues tokens only for its own resource.
#[tokio::test]
async fn token_for_another_resource_is_not_issued() {
    let harness = Harness::new(&[]).await;
    let client = with_code(&harness, "one").await;
    let attacker = Attacker::new(&harness);
    for resource in [
        "https://other.example/mcp",
        &format!("{}/mcp2", harness.broker.url()),
        "nonsense",
    ] {
        let url = with_parameter(&client.authorize_url().unwrap(), "resource", Some(resource));
        let reply = attacker.get(&path_and_query(&url), &[]).await;
        assert_authorization_refused(&reply, "invalid_target");
    }
    let client = with_code(&harness, "one").await;
    let (code, verifier, id) = (
        client.code().unwrap(),
        client.verifier().unwrap(),
        client.client_id().unwrap(),
    );
    let mut fields = exchange_form(&code, &verifier, &id).to_vec();
    fields.push(("resource", "https://other.example/mcp"));
    assert_refused(&client, &fields, "invalid_target").await;
}

/// Reuse of a refresh token: a token older than the predecessor of the current one ends the grant.
#[tokio::test]
async fn reuse_of_an_old_refresh_token_ends_the_grant() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let bob = harness.in_session("bob").await;
    let id = client.client_id().unwrap();
    let stolen = client.refresh_token().unwrap();
    // The owner refreshes twice, so that the stolen token is older than the predecessor of the
    // current one.
    client.refresh().await.unwrap();
    client.refresh().await.unwrap();
    assert_refused(&client, &refresh_form(&stolen, &id), "invalid_grant").await;
    harness.broker.log().contains("reuse").await;
    assert_unauthorized(&client).await;
    let current = client.refresh_token().unwrap();
    assert_refused(&client, &refresh_form(&current, &id), "invalid_grant").await;
    assert_eq!(login_of(&bob).await, "bob", "other users are unaffected");
}

/// OAuth 2.1 section 4.3: a refresh token is bound to its client.
#[tokio::test]
async fn refresh_token_is_rejected_for_another_client() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let thief = Attacker::new(&harness).register_client("thief", REDIRECT).await;
    let token = client.refresh_token().unwrap();
    let answer = client.token_request(&refresh_form(&token, &thief)).await.unwrap();
    assert_eq!(answer.json()["error"], "invalid_grant");
    // The owner's grant is unaffected.
    client.refresh().await.unwrap();
    assert_eq!(login_of(&client).await, "alice");
}

/// A lost response is not a theft: until the successor is used, its predecessor yields the same
/// successor again.
#[tokio::test]
async fn parallel_refreshes_with_one_token_get_the_same_successor() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let (id, token) = (client.client_id().unwrap(), client.refresh_token().unwrap());
    let fields = refresh_form(&token, &id);
    let (a, b, c, d, e, f) = tokio::join!(
        client.token_request(&fields),
        client.token_request(&fields),
        client.token_request(&fields),
        client.token_request(&fields),
        client.token_request(&fields),
        client.token_request(&fields),
    );
    let successors: Vec<String> = [a, b, c, d, e, f]
        .into_iter()
        .map(|answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            answer.json()["refresh_token"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(
        successors.iter().all(|successor| *successor == successors[0]),
        "the successors differ"
    );
    client.set_refresh_token(Some(&successors[0]));
    client.refresh().await.unwrap();
    assert_eq!(login_of(&client).await, "alice");
}

/// obot-platform/mcp-oauth-proxy#44, RFC 7009 section 2.1: a client can revoke only its own tokens,
/// with immediate effect.
#[tokio::test]
async fn revocation_ends_only_its_own_grant_and_at_once() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
    for by_refresh_token in [true, false] {
        let alice = with_code(&harness, &format!("revoked {by_refresh_token}")).await;
        let hers = with_code(&harness, &format!("kept {by_refresh_token}")).await;
        for client in [&alice, &hers] {
            client.exchange().await.unwrap();
            open_session(client).await;
        }
        let bob = harness.in_session("bob").await;
        let before = harness.broker.children().unwrap().len();
        let token = if by_refresh_token {
            alice.refresh_token()
        } else {
            alice.access_token()
        };
        let token = token.unwrap();
        let id = alice.client_id().unwrap();
        let other = attacker.register_client("other", REDIRECT).await;
        // Another client cannot revoke the token, and does not learn whether the token exists.
        let reply = attacker
            .post_form("/oauth/revoke", &[("token", &token), ("client_id", &other)])
            .await;
        let unknown = attacker
            .post_form("/oauth/revoke", &[("token", "fmb_rt_nonsense"), ("client_id", &other)])
            .await;
        assert_eq!((reply.status, &reply.body), (unknown.status, &unknown.body));
        assert_eq!(login_of(&alice).await, "alice");

        let reply = attacker
            .post_form("/oauth/revoke", &[("token", &token), ("client_id", &id)])
            .await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_unauthorized(&alice).await;
        assert_eq!(login_of(&hers).await, "alice", "her other client is unaffected");
        assert_eq!(login_of(&bob).await, "bob");
        // The child stops with the grant, not at the idle timeout.
        while harness.broker.children().unwrap().len() >= before {
            tokio::task::yield_now().await;
        }
        for client in [hers, bob] {
            client.delete().await.unwrap();
        }
    }
}

/// RFC 6750 section 2.3 and the MCP specification: a token in the query or the body is not
/// accepted.
#[tokio::test]
async fn token_in_the_query_or_the_body_is_ignored() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let token = client.access_token().unwrap();
    let attacker = Attacker::new(&harness);
    let path = format!("/mcp?access_token={token}");
    assert_eq!(attacker.get(&path, &[]).await.status, StatusCode::UNAUTHORIZED);
    let reply = attacker.post_form("/mcp", &[("access_token", &token)]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    let mut headers = client.headers();
    headers.remove("authorization");
    let answer = client.raw(Method::POST, headers, "{}").await.unwrap();
    assert_eq!(
        answer.status,
        StatusCode::UNAUTHORIZED,
        "a session id does not authenticate"
    );
}

/// The access token is checked before the body is read: its grant may end while the body arrives.
#[tokio::test]
async fn grant_that_ends_while_the_body_arrives_opens_no_session() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let (token, body) = (alice.access_token().unwrap(), initialize_request("late"));
    let mut connection = RawConnection::open(&harness).await;
    let headers = "expect: 100-continue\r\naccept: application/json, text/event-stream\r\n";
    connection.send_head(&token, headers, body.len()).await;
    // The broker requests the body after it has accepted the token.
    assert_eq!(connection.next_line().await, "HTTP/1.1 100 Continue");
    assert_eq!(connection.next_line().await, "");
    let form = [("token", token.as_str()), ("client_id", &alice.client_id().unwrap())];
    let revoked = Attacker::new(&harness).post_form("/oauth/revoke", &form).await;
    assert_eq!(revoked.status, StatusCode::OK);
    connection.send(&body).await;
    assert_eq!(connection.next_line().await, "HTTP/1.1 401 Unauthorized");
    let mut challenged = false;
    loop {
        let line = connection.next_line().await;
        if line.is_empty() {
            break;
        }
        challenged |= line.to_ascii_lowercase().starts_with("www-authenticate: bearer");
    }
    assert!(challenged);
    assert!(harness.broker.children().unwrap().is_empty());
}
