//! Spawning children: environment, process group, and errors.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{Pid, getpgid};
use supervisor::{Config, SpawnError, Supervisor};

use crate::support::{ChildLines, script, soon, spec, supervisor};

#[tokio::test]
async fn environment_is_the_allow_list_and_the_spec_only() {
    let environment = [
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/home/broker"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C"),
        ("BROKER_STORE_KEY", "hunter2"),
        ("LD_PRELOAD", "/evil.so"),
    ];
    let config = Config::new(environment.map(|(name, value)| (name.into(), value.into())));
    let supervisor = Supervisor::new(config).unwrap();
    let mut spec = spec("env", &[]);
    spec.env = vec![("TOKEN".into(), "t0k3n".into()), ("LANG".into(), "C.UTF-8".into())];
    let child = supervisor.spawn(spec).await.unwrap();

    let mut stdio = ChildLines::with(&child);
    let mut lines = Vec::new();
    while let Some(line) = stdio.read_line().await {
        lines.push(line);
    }
    lines.sort();
    // Another test covers HOME and TMPDIR, which name the child's own directory.
    let [home, lang, path, tmpdir, token] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(
        [lang, path, token],
        ["LANG=C.UTF-8", "PATH=/usr/bin:/bin", "TOKEN=t0k3n"]
    );
    assert!(home.starts_with("HOME=/tmp/supervised-"), "{home}");
    assert_eq!(home.trim_start_matches("HOME="), tmpdir.trim_start_matches("TMPDIR="));
}

#[tokio::test]
async fn arguments_are_not_interpreted_by_a_shell() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(spec("/usr/bin/env", &["printf", "%s\n", "$HOME; `id` > /x | *"]))
        .await
        .unwrap();
    assert_eq!(
        ChildLines::with(&child).read_line().await.unwrap(),
        "$HOME; `id` > /x | *"
    );
}

#[tokio::test]
async fn child_leads_its_own_process_group() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    let pid = Pid::from_raw(child.pid().try_into().unwrap()).unwrap();
    assert_eq!(getpgid(Some(pid)).unwrap(), pid);
    assert_eq!(supervisor.live(), 1);
    soon("the stop", child.stop()).await;
}

#[tokio::test]
async fn streams_are_returned_once() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    let io = child.take_io();
    assert!(io.is_some());
    assert!(child.take_io().is_none());
}

#[tokio::test]
async fn missing_program_is_not_found() {
    let supervisor = supervisor();
    for program in ["no-such-program-anywhere", "/no/such/program", "/etc/passwd/program"] {
        let error = supervisor.spawn(spec(program, &["secret-argument"])).await.unwrap_err();
        assert!(
            matches!(&error, SpawnError::NotFound { program: p } if p == program),
            "{error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("secret-argument"));
    }
    soon("the tasks to end", supervisor.stop_all()).await;
    assert_eq!(supervisor.live(), 0);
}

#[tokio::test]
async fn file_that_is_not_a_program_is_not_executable() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    fs::write(&file, "not a program").unwrap();
    let supervisor = supervisor();
    for program in [file.as_path(), dir.path()] {
        let error = supervisor
            .spawn(spec(program.to_str().unwrap(), &[]))
            .await
            .unwrap_err();
        assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn program_with_a_missing_interpreter_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("script");
    fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let supervisor = supervisor();
    let error = supervisor.spawn(spec(file.to_str().unwrap(), &[])).await.unwrap_err();
    assert!(matches!(error, SpawnError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn program_is_looked_up_without_a_start_as_a_start_would() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("looked-up-tool");
    let mut spec = spec("looked-up-tool", &[]);
    let config = Config::new(std::env::vars_os());
    let supervisor = Supervisor::new(config.clone()).unwrap();
    assert!(matches!(config.find_program(&spec), Err(SpawnError::NotFound { .. })));

    // The path of the spec, not that of the supervisor.
    spec.env = vec![("PATH".into(), dir.path().to_str().unwrap().into())];
    let lookups = async || [config.find_program(&spec), supervisor.find_program(spec.clone()).await];
    for found in lookups().await {
        assert!(matches!(found, Err(SpawnError::NotFound { .. })), "{found:?}");
    }
    fs::write(&tool, "").unwrap();
    for found in lookups().await {
        assert!(matches!(found, Err(SpawnError::NotExecutable { .. })), "{found:?}");
    }
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    for found in lookups().await {
        assert_eq!(found.unwrap(), tool);
    }
    assert_eq!(supervisor.live(), 0);
}

#[tokio::test]
async fn zero_byte_is_rejected() {
    let supervisor = supervisor();
    let error = supervisor.spawn(spec("cat", &["a\0b"])).await.unwrap_err();
    assert!(matches!(error, SpawnError::Invalid(_)), "{error:?}");
}

#[tokio::test]
async fn spawn_after_stop_all_fails() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("cat")).await.unwrap();
    soon("all to stop", supervisor.stop_all()).await;
    assert!(child.exit().is_some());
    assert!(matches!(
        supervisor.spawn(spec("cat", &[])).await,
        Err(SpawnError::Stopping)
    ));
    assert_eq!(supervisor.live(), 0);
}
