//! Child processes, foreign tokens, separation of users, and secrets at rest.

use std::{fs, path::Path};

use http::{Method, StatusCode};
use serde_json::json;
use testkit::{Browser, broker::programs};

use super::{Attacker, JSON_TYPE, registered_client};
use crate::harness::{Harness, assert_unauthorized, login_of, open_session, password, sign_in};

/// CVE-2025-6514: no shell runs, and no client input is on the command line. CVE-2025-49596: only
/// the operator sets the command.
#[tokio::test]
async fn client_input_never_becomes_a_command() {
    let harness = Harness::new(&[]).await;
    let marker = harness.broker.directory().join("pwned");
    let inject = format!("$(touch {0});`touch {0}`|touch {0}", marker.display());
    let client = registered_client(&harness, &inject, "http://127.0.0.1:33418/$(touch%20pwned)").await;
    client
        .authorize(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    client.exchange().await.unwrap();
    let session = client.another_session();
    open_session(&session).await;
    // The proxy of the MCP Inspector took such parameters from its URL.
    let attacker = Attacker::new(&harness);
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
        JSON_TYPE,
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
    for pid in child_pids(&harness) {
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

/// The process ids of the children according to `/proc`.
fn child_pids(harness: &Harness) -> Vec<String> {
    let name = programs().fake_forgejo_mcp.file_name().unwrap().to_str().unwrap();
    let pids: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| {
            let read = |file| fs::read_to_string(Path::new("/proc").join(pid).join(file)).unwrap_or_default();
            read("cmdline").contains(name) && read("cmdline").contains(harness.forgejo.url())
        })
        .collect();
    assert_eq!(pids.len(), harness.broker.children().unwrap().len());
    pids
}

/// MCP security best practices, "Token passthrough": the broker accepts only access tokens that it
/// issued.
#[tokio::test]
async fn only_own_access_tokens_are_accepted() {
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
    // Forgejo does not accept the broker's access tokens.
    let token = format!("token {}", alice.access_token().unwrap());
    let forgejo = Attacker {
        base: harness.forgejo.url().to_owned(),
        ..Attacker::new(&harness)
    };
    let reply = forgejo.get("/api/v1/user", &[("authorization", &token)]).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

/// Two users of one registered client share nothing: the key of each cache contains the user.
#[tokio::test]
async fn two_users_of_one_client_share_nothing() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let bob = harness.client();
    bob.set_client(&alice.client_id().unwrap(), None);
    sign_in(&bob, "bob").await;
    open_session(&bob).await;
    for _ in 0..3 {
        assert_eq!(login_of(&alice).await, "alice");
        assert_eq!(login_of(&bob).await, "bob");
        alice.refresh().await.unwrap();
    }
    let id = alice.client_id().unwrap();
    let token = alice.access_token().unwrap();
    Attacker::new(&harness)
        .post_form("/oauth/revoke", &[("token", &token), ("client_id", &id)])
        .await;
    assert_unauthorized(&alice).await;
    assert_eq!(login_of(&bob).await, "bob");
    bob.refresh().await.unwrap();
}

/// GHSA-g53w-w6mj-hrpp: the program ships no secret. Each installation generates its own.
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
            assert_eq!(mode & 0o077, 0, "only the owner may read {file}: {mode:o}");
        }
    }
    // Another installation does not accept these tokens.
    let alice = one.signed_in("alice").await;
    let elsewhere = other.client();
    elsewhere.set_access_token(alice.access_token().as_deref());
    assert_unauthorized(&elsewhere).await;
}

/// A database without its key contains no usable token: the broker refuses to start, or cannot open
/// any account.
#[tokio::test]
async fn database_without_its_key_gives_no_usable_token() {
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
