//! The processes behind the sessions, and the secrets around them.

use std::{fs, path::Path};

use http::{Method, StatusCode};
use serde_json::json;
use testkit::{Browser, broker::programs};

use super::{Attacker, prepared};
use crate::harness::{Harness, login_of, open, password};

/// CVE-2025-6514: no shell, and nothing of a client on the command line; CVE-2025-49596: the command is the operator's.
#[tokio::test]
async fn nothing_that_a_caller_says_becomes_a_command() {
    let harness = Harness::new(&[]).await;
    let marker = harness.broker.directory().join("pwned");
    let inject = format!("$(touch {0});`touch {0}`|touch {0}", marker.display());
    let client = prepared(&harness, &inject, "http://127.0.0.1:33418/$(touch%20pwned)").await;
    client
        .authorize(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    client.exchange().await.unwrap();
    let session = client.another_session();
    open(&session).await;
    // The Inspector's proxy took these from its URL.
    let attacker = Attacker::of(&harness);
    let bearer = format!("Bearer {}", client.access_token().unwrap());
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "command": "/bin/sh", "args": ["-c", inject],
            "env": { "LD_PRELOAD": "/tmp/evil.so" }, "clientInfo": { "name": inject, "version": inject },
        },
    });
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("x-command", "/bin/sh"),
    ];
    let path = "/mcp?command=/bin/sh&args=-c&transportType=stdio&env=%7B%22A%22%3A%22b%22%7D";
    let reply = attacker
        .send("POST", path, &headers, initialize.to_string())
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);

    let children = harness.broker.children().unwrap();
    assert_eq!(children.len(), 2);
    let expected = fs::canonicalize(&programs().fake_forgejo_mcp).unwrap();
    for pid in pids_below(&harness) {
        let process = Path::new("/proc").join(pid);
        assert_eq!(fs::read_link(process.join("exe")).unwrap(), expected);
        let words = fs::read_to_string(process.join("cmdline")).unwrap();
        let words: Vec<&str> = words.trim_end_matches('\0').split('\0').collect();
        assert_eq!(words[1..], ["--transport", "stdio", "--url", harness.forgejo.url()]);
        let environment = fs::read_to_string(process.join("environ")).unwrap();
        assert!(!environment.contains("LD_PRELOAD") && !environment.contains("touch"));
    }
    assert!(!marker.exists());
    assert_eq!(login_of(&session).await, "alice");
}

/// The process ids of the children, as the kernel lists them.
fn pids_below(harness: &Harness) -> Vec<String> {
    let name = programs().fake_forgejo_mcp.file_name().unwrap().to_str().unwrap();
    let mine: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| {
            let read = |file| fs::read_to_string(Path::new("/proc").join(pid).join(file)).unwrap_or_default();
            read("cmdline").contains(name) && read("cmdline").contains(harness.forgejo.url())
        })
        .collect();
    assert_eq!(mine.len(), harness.broker.children().unwrap().len());
    mine
}

/// MCP security best practices, "Token passthrough": only tokens that this server has given are taken.
#[tokio::test]
async fn a_token_of_forgejo_is_no_token_here() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    for token in [
        harness.forgejo.access_token("alice", "read:user"),
        alice.refresh_token().unwrap(),
        alice.code().unwrap(),
        alice.session_id().unwrap(),
        alice.client_id().unwrap(),
        harness.forgejo.client_secret().to_owned(),
    ] {
        let client = harness.client();
        client.set_access_token(Some(&token));
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let answer = client.raw(Method::POST, client.headers(), body).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    // And no token of the broker is one at Forgejo.
    let token = format!("token {}", alice.access_token().unwrap());
    let forgejo = Attacker {
        base: harness.forgejo.url().to_owned(),
        ..Attacker::of(&harness)
    };
    let reply = forgejo.get("/api/v1/user", &[("authorization", &token)]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

/// Two users of one registered client share nothing: whatever is cached has the principal in its key.
#[tokio::test]
async fn two_users_of_one_client_share_nothing() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let bob = harness.client();
    bob.set_client(&alice.client_id().unwrap(), None);
    bob.sign_in(&mut Browser::new(), "bob", &password("bob")).await.unwrap();
    open(&bob).await;
    for _ in 0..3 {
        assert_eq!(login_of(&alice).await, "alice");
        assert_eq!(login_of(&bob).await, "bob");
        alice.refresh().await.unwrap();
    }
    let id = alice.client_id().unwrap();
    let token = alice.access_token().unwrap();
    Attacker::of(&harness)
        .post_form("/oauth/revoke", &[("token", &token), ("client_id", &id)])
        .await;
    let (answer, _) = alice.request("ping", json!({})).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(login_of(&bob).await, "bob");
    bob.refresh().await.unwrap();
}

/// GHSA-g53w-w6mj-hrpp: no secret comes with the program; each installation makes its own.
#[tokio::test]
async fn there_is_no_default_secret() {
    use std::os::unix::fs::PermissionsExt as _;

    let (one, other) = tokio::join!(Harness::new(&[]), Harness::new(&[]));
    let key = |harness: &Harness| fs::read(harness.broker.directory().join("broker.key")).unwrap();
    assert_ne!(key(&one), key(&other));
    for harness in [&one, &other] {
        for file in ["broker.key", "broker.db"] {
            let mode = fs::metadata(harness.broker.directory().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{file} is for its owner only: {mode:o}");
        }
    }
    // What one has given, the other does not know.
    let alice = one.signed_in("alice").await;
    let elsewhere = other.client();
    elsewhere.set_access_token(alice.access_token().as_deref());
    let (answer, _) = elsewhere.request("ping", json!({})).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

/// A database without its key gives no usable token: the broker does not even start on it, or nobody's account opens.
#[tokio::test]
async fn a_database_without_its_key_is_worth_nothing() {
    let mut harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let (access, refresh) = (alice.access_token().unwrap(), alice.refresh_token().unwrap());
    harness.broker.terminate().await.unwrap();
    let directory = harness.broker.directory().to_owned();
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read(&file).unwrap();
        for secret in [access.as_bytes(), refresh.as_bytes(), b"eyJ"] {
            assert!(
                !text.windows(secret.len()).any(|window| window == secret),
                "a token is in {}",
                file.display()
            );
        }
    }
    fs::remove_file(directory.join("broker.key")).unwrap();
    let before = harness.forgejo.counters();
    if harness.broker.start_again().await.is_ok() {
        let session = alice.another_session();
        assert!(
            session.initialize().await.is_err(),
            "no session without Forgejo's token"
        );
        assert_eq!(harness.forgejo.counters().user_lookups, before.user_lookups);
    }
}
