//! Official SDK clients, signed in by their own OAuth code, against the broker: two users at once, several sessions each,
//! and never an answer of the other user. In front of the double of `forgejo-mcp`, and of a server that is not ours.

mod authorization_suite;
mod chromium;
mod cimd;
mod client_endurance;
mod clients;
mod endurance;
mod features;
mod released;
mod scripted_client;
mod sdk_client;
mod server_suite;
mod tools;

use testkit::broker::ChildCommand;
use tokio::task::JoinSet;

use self::sdk_client::{Run, SDKS, Sdk, everything, modules};
use crate::harness::{Harness, login_in};

const SESSIONS: usize = 3;
const CALLS: usize = 4;

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v1_acts_as_its_own_user() {
    acts_as_its_own_user(Sdk::TypescriptV1).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v2_acts_as_its_own_user() {
    acts_as_its_own_user(Sdk::TypescriptV2).await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn python_acts_as_its_own_user() {
    acts_as_its_own_user(Sdk::Python).await;
}

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn rust_acts_as_its_own_user() {
    acts_as_its_own_user(Sdk::Rust).await;
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn all_sdks_and_both_users_at_once() {
    let harness = Harness::new(&[]).await;
    let mut runs = JoinSet::new();
    for sdk in SDKS {
        for login in ["alice", "bob"] {
            let run = Run::start(sdk, &harness, login, "get_my_user_info", "{}", [SESSIONS, CALLS]);
            runs.spawn(async move { (login, run.finish().await) });
        }
    }
    for (login, outcome) in runs.join_all().await {
        outcome.every_text(|text| assert_eq!(login_in(text), login));
    }
    // Every session was closed; its child may need a moment more.
    for child in harness.broker.children().unwrap() {
        child.exited().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn all_sdks_reach_a_server_that_is_not_ours() {
    let harness = of_modules(everything()).await;
    let mut runs = JoinSet::new();
    for sdk in SDKS {
        for login in ["alice", "bob"] {
            let arguments = format!(r#"{{"message":"{login} {{session}}/{{call}}"}}"#);
            let run = Run::start(sdk, &harness, login, "echo", &arguments, [SESSIONS, CALLS]);
            runs.spawn(async move { (login, run.finish().await) });
        }
    }
    for (login, outcome) in runs.join_all().await {
        for result in &outcome.results {
            assert_eq!(result.text, format!("Echo: {login} {}/{}", result.session, result.call));
        }
        assert_eq!(outcome.results.len(), SESSIONS * CALLS);
    }
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn a_server_that_is_not_ours_gets_the_token_of_its_user_and_no_more() {
    let child = ChildCommand {
        env: vec![("A_TOKEN".into(), "{access_token}".into())],
        ..everything()
    };
    let harness = of_modules(child).await;
    let mut tokens = Vec::new();
    for login in ["alice", "bob"] {
        let outcome = Run::start(Sdk::TypescriptV2, &harness, login, "get-env", "{}", [2, 1])
            .finish()
            .await;
        outcome.every_text(|text| {
            let environment: serde_json::Value = serde_json::from_str(text).unwrap();
            let names: Vec<&String> = environment.as_object().unwrap().keys().collect();
            assert!(
                names
                    .iter()
                    .all(|name| !name.starts_with("BROKER_") && !name.starts_with("CARGO")),
                "{names:?}"
            );
            tokens.push((login, environment["A_TOKEN"].as_str().unwrap().to_owned()));
        });
    }
    let of = |login: &str| {
        tokens
            .iter()
            .filter(|(of, _)| *of == login)
            .map(|(_, token)| token)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("alice").len(), 2);
    assert!(of("alice").iter().all(|token| !of("bob").contains(token)));
}

/// A harness with a server that is made of modules.
async fn of_modules(child: ChildCommand) -> Harness {
    let (key, modules) = modules();
    Harness::with_child(child, &[(key, &modules)]).await
}

async fn acts_as_its_own_user(sdk: Sdk) {
    let harness = Harness::new(&[]).await;
    let start = |login| Run::start(sdk, &harness, login, "get_my_user_info", "{}", [SESSIONS, CALLS]);
    let (alice, bob) = (start("alice"), start("bob"));
    let (alice, bob) = tokio::join!(alice.finish(), bob.finish());
    for (login, outcome) in [("alice", alice), ("bob", bob)] {
        assert_eq!(outcome.results.len(), SESSIONS * CALLS);
        assert_eq!(outcome.sessions, SESSIONS);
        assert!(outcome.tools.iter().all(|&count| count >= 141), "{:?}", outcome.tools);
        outcome.every_text(|text| assert_eq!(login_in(text), login));
    }
    let asked = harness.forgejo.counters().user_lookups;
    assert!(asked.contains(&"alice".to_owned()) && asked.contains(&"bob".to_owned()));
}
