//! Foreign programs against the broker. In this module: the official SDK clients, which sign in
//! with their own OAuth code, for two users with several sessions each. No user gets an answer of
//! the other. The MCP server is the double of `forgejo-mcp`, or the reference server of the MCP
//! project.

mod authorization_suite;
mod chromium;
mod cimd;
mod client_endurance;
mod clients;
mod feature_checks;
mod interruptions;
mod json_lines;
mod release_build;
mod scripted_client;
mod sdk_chaos;
mod sdk_client;
mod server_suite;
mod stateless_clients;
mod third_party_clients;

use testkit::broker::ChildCommand;
use tokio::task::JoinSet;

use self::sdk_client::{Run, RunResult, SDKS, Sdk, everything_server, readable_modules};
use crate::harness::{Harness, login_in};

const SESSIONS: usize = 3;
const CALLS: usize = 4;

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v1_acts_for_its_own_user() {
    acts_for_its_own_user(Sdk::TypescriptV1).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v2_acts_for_its_own_user() {
    acts_for_its_own_user(Sdk::TypescriptV2).await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn python_acts_for_its_own_user() {
    acts_for_its_own_user(Sdk::Python).await;
}

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn rust_acts_for_its_own_user() {
    acts_for_its_own_user(Sdk::Rust).await;
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn all_sdks_act_for_both_users_at_once() {
    let harness = Harness::new(&[]).await;
    for (login, run) in run_all(&harness, "get_my_user_info", |_| "{}".to_owned()).await {
        run.for_each_text(|text| assert_eq!(login_in(text), login));
    }
    // All sessions are closed; their children may take a moment to exit.
    for child in harness.broker.children().unwrap() {
        child.exited().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn all_sdks_work_with_reference_server() {
    let harness = with_reference_server(everything_server()).await;
    let arguments = |login: &str| format!(r#"{{"message":"{login} {{session}}/{{call}}"}}"#);
    for (login, run) in run_all(&harness, "echo", arguments).await {
        for result in &run.results {
            assert_eq!(result.text, format!("Echo: {login} {}/{}", result.session, result.call));
        }
        assert_eq!(run.results.len(), SESSIONS * CALLS);
    }
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn reference_server_gets_token_of_its_user_and_no_broker_variables() {
    let child = ChildCommand {
        env: vec![("A_TOKEN".into(), "{access_token}".into())],
        ..everything_server()
    };
    let harness = with_reference_server(child).await;
    let mut tokens = Vec::new();
    for login in ["alice", "bob"] {
        let run = Run::tool_calls(Sdk::TypescriptV2, &harness, login, "get-env", "{}", [2, 1])
            .finish()
            .await;
        run.for_each_text(|text| {
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
    let tokens_of = |login: &str| {
        tokens
            .iter()
            .filter(|(owner, _)| *owner == login)
            .map(|(_, token)| token)
            .collect::<Vec<_>>()
    };
    assert_eq!(tokens_of("alice").len(), 2);
    assert!(tokens_of("alice").iter().all(|token| !tokens_of("bob").contains(token)));
}

/// A harness whose children are the reference server. They may read its modules.
async fn with_reference_server(child: ChildCommand) -> Harness {
    let (key, modules) = readable_modules();
    Harness::with_child(child, &[(key, &modules)]).await
}

/// Runs all SDKs for both users at once. `arguments` returns the arguments of the tool for a user.
async fn run_all(harness: &Harness, tool: &str, arguments: impl Fn(&str) -> String) -> Vec<(&'static str, RunResult)> {
    let mut runs = JoinSet::new();
    for sdk in SDKS {
        for login in ["alice", "bob"] {
            let run = Run::tool_calls(sdk, harness, login, tool, &arguments(login), [SESSIONS, CALLS]);
            runs.spawn(async move { (login, run.finish().await) });
        }
    }
    runs.join_all().await
}

async fn acts_for_its_own_user(sdk: Sdk) {
    let harness = Harness::new(&[]).await;
    let run = |login| Run::tool_calls(sdk, &harness, login, "get_my_user_info", "{}", [SESSIONS, CALLS]);
    let (alice, bob) = (run("alice"), run("bob"));
    let (alice, bob) = tokio::join!(alice.finish(), bob.finish());
    for (login, run) in [("alice", alice), ("bob", bob)] {
        assert_eq!(run.results.len(), SESSIONS * CALLS);
        assert_eq!(run.sessions, SESSIONS);
        assert!(run.tools.iter().all(|&count| count >= 141), "{:?}", run.tools);
        run.for_each_text(|text| assert_eq!(login_in(text), login));
    }
    let lookups = harness.forgejo.counters().user_lookups;
    assert!(lookups.contains(&"alice".to_owned()) && lookups.contains(&"bob".to_owned()));
}
