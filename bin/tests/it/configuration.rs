//! The command line and the configuration: exit codes and messages.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
};

use tempfile::TempDir;
use testkit::broker::{SharedMcp, free_port, programs};
use tokio::{process::Command, runtime, time::timeout};

use crate::harness::WAIT_LIMIT;

const VALID: &str = r#"
[forgejo]
url = "http://127.0.0.1:3000"
client_id = "an-id"
client_secret = "a-secret-of-the-operator"
scopes = ["read:user"]
"#;

/// Runs the broker on a machine that has a program `forgejo-mcp`.
fn broker(arguments: &[&str], configuration: &str, environment: &[(&str, &str)]) -> Output {
    let directory = TempDir::new().unwrap();
    // Children may have users of their own, who have to find the program.
    std::fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
    std::fs::write(directory.path().join("broker.toml"), configuration).unwrap();
    let program = directory.path().join("forgejo-mcp");
    std::fs::write(&program, "").unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let run = async {
        let run = Command::new(env!("CARGO_BIN_EXE_forgejo-mcp-broker"))
            .args(arguments)
            .current_dir(directory.path())
            .env("PATH", directory.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        timeout(WAIT_LIMIT, run)
            .await
            .expect("the program exits in time")
            .unwrap()
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(run)
}

fn check(configuration: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = broker(&["check", "--config", "broker.toml"], configuration, environment);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn valid_configuration_passes() {
    assert_eq!(check(VALID, &[]), (Some(0), String::new()));
}

#[test]
fn metadata_documents_can_be_switched_off() {
    let off = format!("{VALID}[oauth]\ncimd = false\n");
    assert_eq!(check(&off, &[]), (Some(0), String::new()));
    assert_eq!(
        check(VALID, &[("BROKER_OAUTH__CIMD", "false")]),
        (Some(0), String::new())
    );
    let (code, message) = check(&format!("{VALID}[oauth]\ncimd = \"maybe\"\n"), &[]);
    assert_eq!(code, Some(64), "{message}");
    assert!(message.contains("oauth.cimd"), "{message}");
}

#[test]
fn clients_can_be_blocked() {
    let blocked = format!("{VALID}[oauth]\nblocked_clients = [\"evil.example\", \"*.bad.example\"]\n");
    assert_eq!(check(&blocked, &[]), (Some(0), String::new()));
    let environment = [("BROKER_OAUTH__BLOCKED_CLIENTS", "fmb_client_1,*")];
    let (code, message) = check(VALID, &environment);
    assert_eq!(code, Some(64), "{message}");
    assert!(message.contains("oauth.blocked_clients"), "{message}");
}

#[test]
fn grace_of_a_replaced_refresh_token_can_be_limited() {
    let limited = format!("{VALID}[oauth]\nrefresh_grace = \"60s\"\n");
    assert_eq!(check(&limited, &[]), (Some(0), String::new()));
    let (code, message) = check(&limited.replace("60s", "2d"), &[]);
    assert_eq!(code, Some(64), "{message}");
    assert!(message.contains("oauth.refresh_grace"), "{message}");
}

#[test]
fn all_errors_are_reported_at_once_with_key_and_source() {
    let faulty = r#"
[server]
listen = "here"
public_url = "http://mcp.example.org"
allowed_hosts = ["https://alias.example/"]
allowed_origins = ["nonsense"]
max_connections = 0
max_body_memory = "much"
max_exchanges = 0
max_exchanges_per_grant = 0
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
    let (code, output) = check(faulty, &[("BROKER_CHILD__START_TIMEOUT", "soon")]);
    assert_eq!(code, Some(64));
    for expected in [
        "server.listen",
        "server.public_url",
        "server.allowed_hosts",
        "server.allowed_origins",
        "server.max_connections",
        "server.max_body_memory",
        "server.max_exchanges",
        "server.max_exchanges_per_grant",
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
        assert!(output.contains(expected), "{expected} is missing in:\n{output}");
    }
    assert!(!output.contains("a-secret-of-the-operator"), "{output}");
}

#[test]
fn errors_of_the_machine_are_reported_with_the_others() {
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
    let faulty = format!("{VALID}{child}[session]\nmax_sessions = 0\n");
    let (code, output) = check(&faulty, &[]);
    assert_eq!(code, Some(64));
    for expected in [
        "child.secret_files",
        "child.limits.open_files",
        "child.isolation.users",
        "child.isolation.cgroup",
        "session.max_sessions",
    ] {
        assert!(output.contains(expected), "{expected} is missing in:\n{output}");
    }

    // A missing layer that is not required is printed, and is not an error.
    let without = format!("{VALID}[child.isolation]\ncgroup = \"/nowhere/at-all\"\n");
    let output = broker(&["check", "--config", "broker.toml"], &without, &[]);
    assert_eq!(output.status.code(), Some(0));
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("own control group"), "{output}");
}

#[test]
fn check_finds_out_whether_the_program_of_children_is_there() {
    let program = tempfile::NamedTempFile::new().unwrap();
    let path = program.path().to_str().unwrap();
    for (command, reason) in [
        ("no-such-program", "was not found"),
        ("/no/such/program", "was not found"),
        (path, "cannot be executed"),
    ] {
        let (code, output) = check(VALID, &[("BROKER_CHILD__COMMAND", command)]);
        assert_eq!(code, Some(69), "{output}");
        for part in ["child.command", command, reason] {
            assert!(output.contains(part), "{part} is missing in: {output}");
        }
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        check(VALID, &[("BROKER_CHILD__COMMAND", path)]),
        (Some(0), String::new())
    );
}

#[test]
fn check_leaves_the_directory_of_children_unchanged() {
    let directory = TempDir::new().unwrap();
    // Children may have users of their own, who have to pass through it.
    std::fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
    let path = directory.path().display();
    let valid = format!("{VALID}[child.isolation]\ndirectory = \"{path}\"\n");
    assert_eq!(check(&valid, &[]), (Some(0), String::new()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn serve_refuses_scopes_that_forgejo_treats_as_full_access() {
    let faulty = VALID.replace("\"read:user\"", "\"openid\", \"profile\"");
    let output = broker(&["serve", "--config", "broker.toml"], &faulty, &[]);
    assert_eq!(output.status.code(), Some(64));
    let output = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.contains("forgejo.scopes") && output.contains("access to everything"),
        "{output}"
    );
}

#[test]
fn environment_overrides_the_file_and_may_be_all_digits() {
    let without = VALID.replace("client_secret = \"a-secret-of-the-operator\"", "");
    assert_eq!(check(&without, &[]).0, Some(64));
    assert_eq!(
        check(&without, &[("BROKER_FORGEJO__CLIENT_SECRET", "0123456789")]).0,
        Some(0)
    );
}

/// A valid configuration with a shared server, and further lines of its section.
fn with_shared(url: &str, more: &str) -> String {
    format!("{VALID}[child]\nmode = \"http\"\n[child.upstream]\nurl = \"{url}\"\n{more}")
}

#[test]
fn keys_of_the_other_child_mode_are_errors() {
    let faulty =
        format!("{VALID}[child]\nmode = \"http\"\ncommand = \"forgejo-mcp\"\n[child.isolation]\nlandlock = true\n");
    let (code, output) = check(&faulty, &[("BROKER_CHILD__UPSTREAM__CONNECT_TIMEOUT", "soon")]);
    assert_eq!(code, Some(64));
    for expected in [
        "child.upstream.url: required",
        "child.command: has no effect",
        "child.isolation.landlock: has no effect",
        "child.upstream.connect_timeout",
    ] {
        assert!(output.contains(expected), "{expected} is missing in:\n{output}");
    }
    let faulty = format!("{VALID}[child.upstream]\nurl = \"http://127.0.0.1:1/mcp\"\nmax_message = 3\n");
    let (code, output) = check(&faulty, &[]);
    assert_eq!(code, Some(64));
    for expected in [
        "child.upstream.url: has no effect",
        "child.upstream.max_message: must be at least 1KiB",
    ] {
        assert!(output.contains(expected), "{expected} is missing in:\n{output}");
    }
    let (code, output) = check(VALID, &[("BROKER_CHILD__MODE", "both")]);
    assert_eq!(code, Some(64));
    assert!(output.contains("child.mode"), "{output}");
}

#[test]
fn plain_http_to_a_shared_server_needs_the_permission_of_the_operator() {
    // Nothing can listen on port 0: this status says that the configuration is valid.
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
        let (code, output) = check(&with_shared(url, more), &[]);
        assert_eq!(code, expected, "{url}: {output}");
        assert!(!output.contains("secret@"), "{output}");
    }
}

#[tokio::test]
async fn check_finds_out_whether_the_shared_server_responds() {
    let forgejo = testkit::FakeForgejo::start(testkit::forgejo::Options::default())
        .await
        .unwrap();
    let programs = tokio::task::spawn_blocking(programs).await.unwrap();
    for (strict, era) in [(false, "legacy"), (true, "legacy"), (false, "modern"), (true, "modern")] {
        let program = programs.fake_forgejo_mcp.clone();
        let mut server = SharedMcp::start(program, &forgejo, free_port(), strict, era)
            .await
            .unwrap();
        let there = with_shared(&server.url(), "");
        let elsewhere = with_shared(&server.url().replace("/mcp", "/elsewhere"), "");
        let checked = |configuration: String| tokio::task::spawn_blocking(move || check(&configuration, &[]));
        assert_eq!(
            checked(there.clone()).await.unwrap(),
            (Some(0), String::new()),
            "strict: {strict}, {era}"
        );
        // Each session that the check opened has ended.
        assert_eq!(
            server.log().count("session opened"),
            server.log().count("session ended")
        );
        let (code, output) = checked(elsewhere).await.unwrap();
        assert!(code == Some(69) && output.contains("404"), "{output}");
        server.kill().await.unwrap();
        let (code, output) = checked(there).await.unwrap();
        assert!(code == Some(69) && output.contains("cannot be reached"), "{output}");
    }
}

#[test]
fn bad_command_line_exits_with_64() {
    assert_eq!(broker(&["serve", "--port", "1"], VALID, &[]).status.code(), Some(64));
}

#[test]
fn version_is_printed() {
    let output = broker(&["--version"], VALID, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn example_of_the_readme_is_valid() {
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
