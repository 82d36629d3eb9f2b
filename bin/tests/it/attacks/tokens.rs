//! The token endpoint and revocation: codes and tokens in the wrong hands, at the wrong time, twice.

use http::{Method, StatusCode};
use serde_json::json;
use testkit::{Browser, Client};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{Attacker, REDIRECT, parameter, path_of, prepared, with_parameter};
use crate::{
    harness::{Harness, login_of, open, password},
    sessions::LIMIT,
};

/// A client with a code that nobody has used yet.
async fn with_code(harness: &Harness, name: &str) -> Client {
    let client = prepared(harness, name, REDIRECT).await;
    client
        .authorize(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    client
}

/// The fields of the right exchange.
fn exchange<'a>(code: &'a str, verifier: &'a str, client_id: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", verifier),
        ("client_id", client_id),
    ]
}

async fn is_refused(client: &Client, fields: &[(&str, &str)], error: &str) {
    let answer = client.token_request(fields).await.unwrap();
    assert!(answer.status.is_client_error(), "{}", answer.text());
    assert_eq!(answer.json()["error"], error, "{fields:?}");
    assert!(!answer.text().contains("fmb_"), "an error answer holds no token");
}

/// A refused authorization request: told to the client by a redirect, or to the user on a page that offers no consent.
#[track_caller]
fn says_no(reply: &super::Reply, error: &str) {
    assert!(!reply.body.contains("\"decision\""), "no consent is asked for");
    if reply.status.is_redirection() {
        let back: url::Url = reply.header("location").parse().unwrap();
        assert!(back.as_str().starts_with(REDIRECT), "{back}");
        assert_eq!(parameter(&back, "error").as_deref(), Some(error), "{back}");
        assert_eq!(parameter(&back, "code"), None);
    } else {
        assert!(reply.status.is_client_error(), "{}", reply.status);
    }
}

async fn is_dead(client: &Client) {
    let answer = client.request("ping", json!({})).await.unwrap().0;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
}

/// RFC 6749 section 4.1.2: a code that comes twice is refused, and what it gave is revoked.
#[tokio::test]
async fn a_code_that_is_replayed_ends_what_it_gave() {
    let harness = Harness::new(&[]).await;
    let client = with_code(&harness, "one").await;
    let (code, verifier) = (client.code().unwrap(), client.verifier().unwrap());
    client.exchange().await.unwrap();
    open(&client).await;
    let children = harness.broker.children().unwrap();
    assert_eq!(children.len(), 1);

    let id = client.client_id().unwrap();
    is_refused(&client, &exchange(&code, &verifier, &id), "invalid_grant").await;
    is_dead(&client).await;
    children[0].exited().await.unwrap();
    let refresh = client.refresh_token().unwrap();
    is_refused(
        &client,
        &[
            ("grant_type", "refresh_token"),
            ("refresh_token", &refresh),
            ("client_id", &id),
        ],
        "invalid_grant",
    )
    .await;
}

/// RFC 6749 section 4.1.3, RFC 7636 section 4.6.
#[tokio::test]
async fn a_stolen_code_is_worth_nothing_to_another_client_or_with_another_redirect_or_verifier() {
    let harness = Harness::new(&[]).await;
    let thief = prepared(&harness, "thief", REDIRECT).await;
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
        let fields: Vec<(&str, &str)> = exchange(&code, &verifier, &id)
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

/// CVE-2025-4144, OAuth 2.1 section 7.5.1: no challenge, `plain`, and a challenge that is none.
#[tokio::test]
async fn pkce_cannot_be_left_out_or_downgraded() {
    let harness = Harness::new(&[]).await;
    let client = prepared(&harness, "one", REDIRECT).await;
    let good = client.authorize_url().unwrap();
    let attacker = Attacker::of(&harness);
    for (name, value) in [
        ("code_challenge", None),
        ("code_challenge", Some("")),
        ("code_challenge", Some("short")),
        ("code_challenge_method", None),
        ("code_challenge_method", Some("plain")),
        ("code_challenge_method", Some("s256")),
    ] {
        let reply = attacker.get(&path_of(&with_parameter(&good, name, value)), &[]).await;
        says_no(&reply, "invalid_request");
    }
    // The same parameter twice is neither of the two (RFC 6749 section 3.1).
    let mut twice = good.clone();
    twice.query_pairs_mut().append_pair("code_challenge_method", "plain");
    let reply = attacker.get(&path_of(&twice), &[]).await;
    assert!(!reply.body.contains("decision"), "no consent page for it");
}

/// RFC 8707 section 2: a token is for this resource or for none.
#[tokio::test]
async fn a_token_for_another_resource_is_not_to_be_had() {
    let harness = Harness::new(&[]).await;
    let client = with_code(&harness, "one").await;
    let attacker = Attacker::of(&harness);
    for resource in [
        "https://other.example/mcp",
        &format!("{}/mcp2", harness.broker.url()),
        "nonsense",
    ] {
        let url = with_parameter(&client.authorize_url().unwrap(), "resource", Some(resource));
        let reply = attacker.get(&path_of(&url), &[]).await;
        says_no(&reply, "invalid_target");
    }
    let client = with_code(&harness, "one").await;
    let (code, verifier, id) = (
        client.code().unwrap(),
        client.verifier().unwrap(),
        client.client_id().unwrap(),
    );
    let mut fields = exchange(&code, &verifier, &id).to_vec();
    fields.push(("resource", "https://other.example/mcp"));
    is_refused(&client, &fields, "invalid_target").await;
}

/// A refresh token that was stolen and used: the one who comes with an older one than the last ends the grant.
#[tokio::test]
async fn a_stolen_refresh_token_ends_the_grant_when_both_use_it() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let bob = harness.in_session("bob").await;
    let id = client.client_id().unwrap();
    let stolen = client.refresh_token().unwrap();
    // The owner goes on twice, so that the stolen one is an ancestor.
    client.refresh().await.unwrap();
    client.refresh().await.unwrap();
    let fields = |token| {
        [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", id.as_str()),
        ]
    };
    is_refused(&client, &fields(&stolen), "invalid_grant").await;
    harness.broker.log().contains("reuse").await;
    is_dead(&client).await;
    is_refused(&client, &fields(&client.refresh_token().unwrap()), "invalid_grant").await;
    assert_eq!(login_of(&bob).await, "bob", "nobody else is touched");
}

/// OAuth 2.1 section 4.3: a refresh token is bound to its client.
#[tokio::test]
async fn a_refresh_token_is_worth_nothing_to_another_client() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let thief = Attacker::of(&harness).client("thief", REDIRECT).await;
    let token = client.refresh_token().unwrap();
    let answer = client
        .token_request(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &token),
            ("client_id", &thief),
        ])
        .await
        .unwrap();
    assert_eq!(answer.json()["error"], "invalid_grant");
    // The theft is none: the owner loses nothing by it.
    client.refresh().await.unwrap();
    assert_eq!(login_of(&client).await, "alice");
}

/// A lost answer is no theft: the predecessor gets the same successor until that is used.
#[tokio::test]
async fn six_parallel_refreshes_with_one_token_get_one_successor() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let (id, token) = (client.client_id().unwrap(), client.refresh_token().unwrap());
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token.as_str()),
        ("client_id", id.as_str()),
    ];
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
        "one successor"
    );
    client.set_refresh_token(Some(&successors[0]));
    client.refresh().await.unwrap();
    assert_eq!(login_of(&client).await, "alice");
}

/// obot-platform/mcp-oauth-proxy#44, RFC 7009 section 2.1: one's own tokens and nobody else's, and at once.
#[tokio::test]
async fn revocation_ends_its_own_grant_at_once_and_no_other() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
    for by_refresh_token in [true, false] {
        let alice = with_code(&harness, &format!("revoked {by_refresh_token}")).await;
        let hers = with_code(&harness, &format!("kept {by_refresh_token}")).await;
        for client in [&alice, &hers] {
            client.exchange().await.unwrap();
            open(client).await;
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
        let other = attacker.client("other", REDIRECT).await;
        // Another client cannot, and is not told whether there is such a token.
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
        is_dead(&alice).await;
        assert_eq!(login_of(&hers).await, "alice", "her other client goes on");
        assert_eq!(login_of(&bob).await, "bob");
        // The child goes with the grant, not after some idle time.
        while harness.broker.children().unwrap().len() >= before {
            tokio::task::yield_now().await;
        }
        for client in [hers, bob] {
            client.delete().await.unwrap();
        }
    }
}

/// RFC 6750 section 2.3 and the MCP specification: a token in the query is none.
#[tokio::test]
async fn a_token_in_the_query_or_the_body_is_none() {
    let harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let token = client.access_token().unwrap();
    let attacker = Attacker::of(&harness);
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
        "a session is no authentication"
    );
}

/// The bearer is checked before the body is read; what it stood for may be over when the body is there.
#[tokio::test]
async fn a_grant_that_ends_while_a_body_arrives_opens_no_session() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let initialize = json!({
        "jsonrpc": "2.0", "id": "late", "method": "initialize",
        "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "x", "version": "1" } },
    });
    let address = harness.broker.url().strip_prefix("http://").unwrap().to_owned();
    let stream = TcpStream::connect(&address).await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let (token, body) = (alice.access_token().unwrap(), initialize.to_string());
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n\
         accept: application/json, text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let mut next = async || {
        let line = timeout(LIMIT, lines.next_line()).await.expect("an answer comes");
        line.unwrap().unwrap_or_default()
    };
    // The body is asked for once the bearer is found good.
    assert_eq!(next().await, "HTTP/1.1 100 Continue");
    assert_eq!(next().await, "");
    let form = [("token", token.as_str()), ("client_id", &alice.client_id().unwrap())];
    let revoked = Attacker::of(&harness).post_form("/oauth/revoke", &form).await;
    assert_eq!(revoked.status, StatusCode::OK);
    write.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(next().await, "HTTP/1.1 401 Unauthorized");
    let mut challenged = false;
    loop {
        let line = next().await;
        if line.is_empty() {
            break;
        }
        challenged |= line.to_ascii_lowercase().starts_with("www-authenticate: bearer");
    }
    assert!(challenged);
    assert!(harness.broker.children().unwrap().is_empty());
}
