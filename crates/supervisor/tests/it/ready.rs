//! Reports of children that do not become ready.

use std::io;
use std::time::Duration;

use supervisor::{ReadyError, SpawnError, Supervisor};

use crate::support::{ChildLines, script, soon, spec, supervisor, supervisor_with};

/// A handshake of one line.
async fn greeting(stdio: &mut ChildLines) -> io::Result<String> {
    stdio.write_line("hello").await?;
    stdio
        .read_line()
        .await
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test]
async fn child_that_answers_is_ready() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(child.ready(greeting(&mut stdio)).await.unwrap(), "hello");
}

#[tokio::test]
async fn child_that_exits_during_start_is_reported_with_code_and_stderr() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("echo 'cannot reach Forgejo' >&2; exit 3"))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    let error = soon("the report", child.ready(greeting(&mut stdio))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the child exited with code 3, stderr: cannot reach Forgejo"
    );
    assert!(matches!(error, ReadyError::Exited { exit, .. } if exit.code == Some(3) && !exit.requested));
}

fn supervisor_with_short_start_timeout() -> Supervisor {
    supervisor_with(|config| config.start_timeout = Duration::from_millis(300))
}

#[tokio::test]
async fn silent_child_is_too_slow() {
    let supervisor = supervisor_with_short_start_timeout();
    let child = supervisor
        .spawn(script("echo 'waiting for Forgejo' >&2; exec sleep 1000"))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    let error = soon("the report", child.ready(greeting(&mut stdio))).await.unwrap_err();
    assert!(
        matches!(&error, ReadyError::TooSlow { stderr, .. } if stderr == &["waiting for Forgejo"]),
        "{error}"
    );
    assert!(child.exit().is_none(), "it is the caller who stops it");
    soon("the stop", child.stop()).await;
}

#[tokio::test]
async fn spawn_that_takes_too_long_fails_and_leaves_no_child() {
    let supervisor = supervisor_with(|config| config.start_timeout = Duration::ZERO);
    let error = supervisor.spawn(spec("cat", &[])).await.unwrap_err();
    assert!(matches!(error, SpawnError::TooSlow(Duration::ZERO)), "{error:?}");
    soon("the child to be gone", async {
        while supervisor.live() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn failed_handshake_with_a_living_child_is_a_separate_error() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script("exec >&-; exec sleep 1000")).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let error = soon("the report", child.ready(greeting(&mut stdio))).await.unwrap_err();
    assert!(matches!(error, ReadyError::Failed(error) if error.kind() == io::ErrorKind::UnexpectedEof));
}
