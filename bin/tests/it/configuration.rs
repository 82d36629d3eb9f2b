//! The program as an operator meets it: exit codes and what it says.

use std::process::{Output, Stdio};

use tempfile::TempDir;
use testkit::broker::{SharedMcp, free_port, programs};
use tokio::{process::Command, runtime, time::timeout};

use crate::sessions::LIMIT;

const SOUND: &str = r#"
[forgejo]
url = "http://127.0.0.1:3000"
client_id = "an-id"
client_secret = "a-secret-of-the-operator"
scopes = ["read:user"]
"#;

fn broker(arguments: &[&str], configuration: &str, environment: &[(&str, &str)]) -> Output {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("broker.toml"), configuration).unwrap();
    let run = async {
        let run = Command::new(env!("CARGO_BIN_EXE_forgejo-mcp-broker"))
            .args(arguments)
            .current_dir(directory.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        timeout(LIMIT, run).await.expect("it comes to an end").unwrap()
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(run)
}

fn check(configuration: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = broker(&["check", "--config", "broker.toml"], configuration, environment);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_sound_configuration_passes() {
    assert_eq!(check(SOUND, &[]), (Some(0), String::new()));
}

#[test]
fn every_fault_is_told_at_once_with_its_key_and_source() {
    let faulty = r#"
[server]
listen = "here"
public_url = "http://mcp.example.org"
allowed_hosts = ["https://alias.example/"]
allowed_origins = ["nonsense"]
[forgejo]
url = "git.example.org"
client_id = ""
client_secret = "a-secret-of-the-operator"
scopes = ["openid"]
[session]
idle_timout = "15m"
max_sessions = 0
reap_interval = "300000000000y"
"#;
    let (code, said) = check(faulty, &[("BROKER_CHILD__START_TIMEOUT", "soon")]);
    assert_eq!(code, Some(64));
    for expected in [
        "server.listen",
        "server.public_url",
        "server.allowed_hosts",
        "server.allowed_origins",
        "forgejo.client_id",
        "session.reap_interval",
        "forgejo.url",
        "forgejo.scopes",
        "session.idle_timout",
        "session.max_sessions",
        "child.start_timeout",
        "broker.toml",
        "BROKER_CHILD__START_TIMEOUT",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    assert!(!said.contains("a-secret-of-the-operator"), "{said}");
}

#[test]
fn what_only_the_machine_can_tell_is_told_with_the_rest() {
    let child = r#"
[child]
require_isolation = true
secret_files = ["../TOKEN"]
[child.limits]
open_files = 3
[child.isolation]
users = [0, 10]
cgroup = "/nowhere/at-all"
"#;
    let faulty = format!("{SOUND}{child}[session]\nmax_sessions = 0\n");
    let (code, said) = check(&faulty, &[]);
    assert_eq!(code, Some(64));
    for expected in [
        "child.secret_files",
        "child.limits.open_files",
        "child.isolation.users",
        "child.isolation.cgroup",
        "session.max_sessions",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }

    // What is not required is told, and no fault.
    let without = format!("{SOUND}[child.isolation]\ncgroup = \"/nowhere/at-all\"\n");
    let output = broker(&["check", "--config", "broker.toml"], &without, &[]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("own control group"), "{said}");
}

#[test]
fn a_directory_of_children_is_tried_and_left_as_it_was() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().display();
    let sound = format!("{SOUND}[child.isolation]\ndirectory = \"{path}\"\n");
    assert_eq!(check(&sound, &[]), (Some(0), String::new()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn serve_refuses_scopes_that_forgejo_would_take_for_full_access_and_says_why() {
    let faulty = SOUND.replace("\"read:user\"", "\"openid\", \"profile\"");
    let output = broker(&["serve", "--config", "broker.toml"], &faulty, &[]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("forgejo.scopes") && said.contains("access to everything"),
        "{said}"
    );
}

#[test]
fn the_environment_overrides_the_file_and_may_be_all_digits() {
    let without = SOUND.replace("client_secret = \"a-secret-of-the-operator\"", "");
    assert_eq!(check(&without, &[]).0, Some(64));
    assert_eq!(
        check(&without, &[("BROKER_FORGEJO__CLIENT_SECRET", "0123456789")]).0,
        Some(0)
    );
}

/// A sound configuration with a shared server, and what else is said of it.
fn with_shared(url: &str, more: &str) -> String {
    format!("{SOUND}[child]\nmode = \"http\"\n[child.upstream]\nurl = \"{url}\"\n{more}")
}

#[test]
fn the_two_modes_of_a_child_do_not_mix() {
    let faulty =
        format!("{SOUND}[child]\nmode = \"http\"\ncommand = \"forgejo-mcp\"\n[child.isolation]\nlandlock = true\n");
    let (code, said) = check(&faulty, &[("BROKER_CHILD__UPSTREAM__CONNECT_TIMEOUT", "soon")]);
    assert_eq!(code, Some(64));
    for expected in [
        "child.upstream.url: required",
        "child.command: means nothing",
        "child.isolation.landlock: means nothing",
        "child.upstream.connect_timeout",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    let faulty = format!("{SOUND}[child.upstream]\nurl = \"http://127.0.0.1:1/mcp\"\nmax_message = 3\n");
    let (code, said) = check(&faulty, &[]);
    assert_eq!(code, Some(64));
    for expected in [
        "child.upstream.url: means nothing",
        "child.upstream.max_message: has to be 1KiB",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    let (code, said) = check(SOUND, &[("BROKER_CHILD__MODE", "both")]);
    assert_eq!(code, Some(64));
    assert!(said.contains("child.mode"), "{said}");
}

#[test]
fn tokens_do_not_cross_a_network_in_the_clear_unless_the_operator_says_so() {
    // A port on which nobody can listen: whoever gets so far has no fault.
    let unreachable = Some(69);
    for (url, more, expected) in [
        ("http://mcp.example.org/mcp", "", Some(64)),
        ("http://192.0.2.1/mcp", "", Some(64)),
        ("http://127.0.0.1.example.org/mcp", "", Some(64)),
        ("http://127.0.0.1:0/mcp", "", unreachable),
        ("http://[::1]:0/mcp", "", unreachable),
        ("http://localhost:0/mcp", "", unreachable),
        ("https://127.0.0.1:0/mcp", "", unreachable),
        ("http://0.0.0.0:0/mcp", "allow_http = true\n", unreachable),
        ("https://user:secret@mcp.example.org/mcp", "", Some(64)),
    ] {
        let (code, said) = check(&with_shared(url, more), &[]);
        assert_eq!(code, expected, "{url}: {said}");
        assert!(!said.contains("secret@"), "{said}");
    }
}

#[tokio::test]
async fn a_check_finds_out_whether_the_shared_server_is_there() {
    let forgejo = testkit::FakeForgejo::start(testkit::forgejo::Options::default())
        .await
        .unwrap();
    let programs = tokio::task::spawn_blocking(programs).await.unwrap();
    for strict in [false, true] {
        let program = programs.fake_forgejo_mcp.clone();
        let mut server = SharedMcp::start(program, &forgejo, free_port(), strict).await.unwrap();
        let there = with_shared(&server.url(), "");
        let elsewhere = with_shared(&server.url().replace("/mcp", "/elsewhere"), "");
        let checked = |configuration: String| tokio::task::spawn_blocking(move || check(&configuration, &[]));
        assert_eq!(
            checked(there.clone()).await.unwrap(),
            (Some(0), String::new()),
            "strict: {strict}"
        );
        // Nothing is left behind: what was opened was ended.
        assert_eq!(
            server.log().count("session opened"),
            server.log().count("session ended")
        );
        let (code, said) = checked(elsewhere).await.unwrap();
        assert!(code == Some(69) && said.contains("404"), "{said}");
        server.kill().await.unwrap();
        let (code, said) = checked(there).await.unwrap();
        assert!(code == Some(69) && said.contains("cannot be reached"), "{said}");
    }
}

#[test]
fn a_bad_command_line_exits_with_64() {
    assert_eq!(broker(&["serve", "--port", "1"], SOUND, &[]).status.code(), Some(64));
}

#[test]
fn the_version_is_printed() {
    let output = broker(&["--version"], SOUND, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_reference_is_what_the_code_says() {
    let page = std::fs::read_to_string(root("docs/configuration.md")).unwrap();
    let printed = forgejo_mcp_broker::config::reference::markdown();
    assert!(
        page == printed,
        "docs/configuration.md is not what `cargo xtask docs` prints"
    );
}

#[test]
fn the_example_of_the_readme_is_sound() {
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    let example = readme.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a-secret\n").unwrap();
    let example = example.replace("/etc/forgejo-mcp-broker/client-secret", secret.path().to_str().unwrap());
    assert_eq!(check(&example, &[]), (Some(0), String::new()));
}

fn root(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join(file)
}
