//! Orphans of children, and processes that other code in this process started.

use std::process::{Command, Stdio};

use crate::support::{ChildLines, ProcessWatch, done, is_root, script, soon, spec, supervisor};

/// Leaves the group and the session, ignores SIGTERM, holds the pipes, and prints its pid.
const ORPHAN: &str = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000'";

#[tokio::test]
async fn process_that_left_the_group_with_the_pipes_ends_with_the_child() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script(&format!("{ORPHAN} & read go"))).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let orphan = ProcessWatch::on(stdio.read_number().await);
    assert!(!orphan.is_dead());
    soon("the stop", child.stop()).await;
    assert!(orphan.is_dead());
    assert_eq!(stdio.read_line().await, None);
}

#[tokio::test]
async fn orphan_ends_with_its_child_and_not_before() {
    let supervisor = supervisor();
    // The shell between the child and the orphan exits at once, as a daemonizing program does.
    let child = supervisor
        .spawn(script(&format!(
            "sh -c \"{} &\"; cat",
            ORPHAN.replace('"', "\\\"").replace('$', "\\$")
        )))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    let orphan = ProcessWatch::on(stdio.read_number().await);
    // Another child starts and ends meanwhile: its end must not end this child's orphan.
    let other = supervisor.spawn(script("exit 0")).await.unwrap();
    done(&other).await;
    assert!(!orphan.is_dead());
    stdio.write_line("still here").await.unwrap();
    assert_eq!(stdio.read_line().await.as_deref(), Some("still here"));
    drop(stdio);
    done(&child).await;
    assert!(orphan.is_dead());
    assert!(!child.exit().unwrap().requested);
}

#[tokio::test]
async fn tree_of_processes_in_other_sessions_ends_with_the_child() {
    let supervisor = supervisor();
    let tree =
        "setsid sh -c 'echo $$; setsid sh -c \"echo \\$\\$; setsid sleep 1000 & echo \\$!; wait\" & wait' & read go";
    let child = supervisor.spawn(script(tree)).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(ProcessWatch::on(stdio.read_number().await));
    }
    assert!(!processes.iter().any(ProcessWatch::is_dead));
    soon("the stop", child.stop()).await;
    assert!(processes.iter().all(ProcessWatch::is_dead));
}

#[tokio::test]
async fn processes_that_other_code_started_are_left_alone() {
    let supervisor = supervisor();
    // The second has its own session, as a child has.
    let start = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut others = [
        start("sleep", &["1000"]),
        start("setsid", &["sleep", "1000"]),
        start("sh", &["-c", "exit 7"]),
    ];
    for _ in 0..5 {
        let child = supervisor.spawn(script(&format!("{ORPHAN} & read go"))).await.unwrap();
        let mut stdio = ChildLines::with(&child);
        let orphan = ProcessWatch::on(stdio.read_number().await);
        soon("the stop", child.stop()).await;
        assert!(orphan.is_dead());
    }
    let [one, two, ended] = &mut others;
    assert!(one.try_wait().unwrap().is_none() && two.try_wait().unwrap().is_none());
    // Its exit status is still there to be waited for.
    assert_eq!(ended.wait().unwrap().code(), Some(7));
    for other in [one, two] {
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

#[tokio::test]
async fn child_of_another_supervisor_is_left_alone() {
    let (one, two) = (supervisor(), supervisor());
    let living = one.spawn(spec("cat", &[])).await.unwrap();
    let ending = two.spawn(spec("cat", &[])).await.unwrap();
    soon("the stop", ending.stop()).await;
    soon("the stop", two.stop_all()).await;
    let mut stdio = ChildLines::with(&living);
    stdio.write_line("alive").await.unwrap();
    assert_eq!(stdio.read_line().await.as_deref(), Some("alive"));
}

/// The session of a program that is put into a container from outside has no number inside it.
#[test]
fn orphans_end_with_the_child_in_a_pid_namespace_with_an_outside_session() {
    if !is_root() {
        return;
    }
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    inside.arg(std::env::current_exe().unwrap());
    inside.args([
        "--exact",
        "orphans::tree_of_processes_in_other_sessions_ends_with_the_child",
    ]);
    let output = inside.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
