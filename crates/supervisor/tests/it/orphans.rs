//! What children leave behind, and what others in the same process have started.

use std::process::{Command, Stdio};

use crate::support::{ChildLines, ProcessWatch, done, is_root, script, soon, spec, supervisor};

/// Leaves the group and the session, ignores SIGTERM, holds the pipes, and says its number.
const STRAY: &str = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000'";

#[tokio::test]
async fn a_process_that_left_the_group_with_the_pipes_ends_with_the_child() {
    let supervisor = supervisor();
    let child = supervisor.spawn(script(&format!("{STRAY} & read go"))).await.unwrap();
    let mut talk = ChildLines::with(&child);
    let stray = ProcessWatch::on(talk.read_number().await);
    assert!(!stray.is_dead());
    soon("the stop", child.stop()).await;
    assert!(stray.is_dead());
    assert_eq!(talk.read_line().await, None);
}

#[tokio::test]
async fn a_process_whose_parents_are_gone_ends_with_the_child_and_not_before() {
    let supervisor = supervisor();
    // The shell between the child and the stray exits at once, as a program that becomes a daemon does it.
    let child = supervisor
        .spawn(script(&format!(
            "sh -c \"{} &\"; cat",
            STRAY.replace('"', "\\\"").replace('$', "\\$")
        )))
        .await
        .unwrap();
    let mut talk = ChildLines::with(&child);
    let stray = ProcessWatch::on(talk.read_number().await);
    // Another child comes and goes meanwhile: what is not its own must not go with it.
    let other = supervisor.spawn(script("exit 0")).await.unwrap();
    done(&other).await;
    assert!(!stray.is_dead());
    talk.write_line("still here").await.unwrap();
    assert_eq!(talk.read_line().await.as_deref(), Some("still here"));
    drop(talk);
    done(&child).await;
    assert!(stray.is_dead());
    assert!(!child.exit().unwrap().requested);
}

#[tokio::test]
async fn a_whole_tree_of_strays_ends_with_the_child() {
    let supervisor = supervisor();
    let tree =
        "setsid sh -c 'echo $$; setsid sh -c \"echo \\$\\$; setsid sleep 1000 & echo \\$!; wait\" & wait' & read go";
    let child = supervisor.spawn(script(tree)).await.unwrap();
    let mut talk = ChildLines::with(&child);
    let mut eyes = Vec::new();
    for _ in 0..3 {
        eyes.push(ProcessWatch::on(talk.read_number().await));
    }
    assert!(!eyes.iter().any(ProcessWatch::is_dead));
    soon("the stop", child.stop()).await;
    assert!(eyes.iter().all(ProcessWatch::is_dead));
}

#[tokio::test]
async fn what_others_in_this_process_started_is_left_alone() {
    let supervisor = supervisor();
    // The second has even a session of its own, as a child has.
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
        let child = supervisor.spawn(script(&format!("{STRAY} & read go"))).await.unwrap();
        let mut talk = ChildLines::with(&child);
        let stray = ProcessWatch::on(talk.read_number().await);
        soon("the stop", child.stop()).await;
        assert!(stray.is_dead());
    }
    let [one, two, ended] = &mut others;
    assert!(one.try_wait().unwrap().is_none() && two.try_wait().unwrap().is_none());
    // Its exit is still there for whoever waits for it.
    assert_eq!(ended.wait().unwrap().code(), Some(7));
    for other in [one, two] {
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

#[tokio::test]
async fn a_child_of_another_supervisor_is_left_alone() {
    let (one, two) = (supervisor(), supervisor());
    let living = one.spawn(spec("cat", &[])).await.unwrap();
    let ending = two.spawn(spec("cat", &[])).await.unwrap();
    soon("the stop", ending.stop()).await;
    soon("the stop", two.stop_all()).await;
    let mut talk = ChildLines::with(&living);
    talk.write_line("alive").await.unwrap();
    assert_eq!(talk.read_line().await.as_deref(), Some("alive"));
}

/// A program that is put into a container from outside has a session there that has no number inside.
#[test]
fn in_a_pid_namespace_whose_session_began_outside_strays_end_with_the_child_too() {
    if !is_root() {
        return;
    }
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    inside.arg(std::env::current_exe().unwrap());
    inside.args(["--exact", "orphans::a_whole_tree_of_strays_ends_with_the_child"]);
    let output = inside.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
