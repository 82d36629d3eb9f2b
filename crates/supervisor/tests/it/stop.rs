//! Stopping children.

use std::time::Duration;

use supervisor::Child;
use tokio::task::JoinSet;

use crate::support::{ChildLines, ProcessWatch, script, soon, spec, supervisor, supervisor_with_grace};

#[tokio::test]
async fn stop_closes_stdin_and_sends_sigterm() {
    // Exits with 3 only after both: the end of its input ends the first loop, SIGTERM runs the
    // trap.
    let text = "trap 'got=term' TERM; echo ready; while read line; do :; done; \
                while [ -z \"$got\" ]; do sleep 0.01; done; exit 3";
    let supervisor = supervisor();
    let child = supervisor.spawn(script(text)).await.unwrap();
    assert_eq!(ChildLines::with(&child).read_line().await.as_deref(), Some("ready"));
    soon("the stop", child.stop()).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.requested), (Some(3), true));
}

#[tokio::test]
async fn child_that_ignores_sigterm_is_killed_after_the_grace() {
    let grace = Duration::from_millis(100);
    let supervisor = supervisor_with_grace(grace);
    let child = supervisor
        .spawn(script("trap '' TERM; echo ready; sleep 1000; sleep 1000"))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some("ready"));
    let before = tokio::time::Instant::now();
    soon("the stop", child.stop()).await;
    assert!(before.elapsed() >= grace);
    let exit = child.exit().unwrap();
    assert_eq!((exit.signal, exit.requested), (Some(9), true));
}

#[tokio::test]
async fn suspended_child_is_stopped() {
    let supervisor = supervisor_with_grace(Duration::from_millis(50));
    let child = supervisor.spawn(script("kill -STOP $$")).await.unwrap();
    soon("the child to be suspended", async {
        while state(&child) != "T" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("the stop", child.stop()).await;
    assert_eq!(child.exit().unwrap().signal, Some(9));
}

#[tokio::test]
async fn grandchildren_in_the_group_are_gone_when_stop_returns() {
    // The grandchild ignores SIGTERM, so that only SIGKILL to the group can end it.
    let text = "sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & wait";
    let supervisor = supervisor();
    let child = supervisor.spawn(script(text)).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    let grandchild = ProcessWatch::on(stdio.read_number().await);
    soon("the stop", child.stop()).await;
    assert!(grandchild.is_dead());
}

#[tokio::test]
async fn stop_is_idempotent_for_concurrent_callers() {
    let supervisor = supervisor();
    let child = std::sync::Arc::new(supervisor.spawn(spec("cat", &[])).await.unwrap());
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let child = std::sync::Arc::clone(&child);
        callers.spawn(async move {
            child.stop().await;
            child.exit().expect("stop returns when the child is gone")
        });
    }
    let exits = soon("all callers", callers.join_all()).await;
    assert!(exits.iter().all(|exit| exit == &exits[0] && exit.requested));
    soon("one more stop", child.stop()).await;
    assert_eq!(child.exit().unwrap(), exits[0]);
}

#[tokio::test]
async fn dropped_stop_continues() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &[])).await.unwrap();
    tokio::select! { biased; () = child.stop() => {} () = async {} => {} }
    soon("the child to be done", child.done().cancelled_owned()).await;
    assert!(child.exit().unwrap().requested);
}

#[tokio::test]
async fn write_to_a_stopping_child_fails() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(
            "trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done",
        ))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some("ready"));
    tokio::select! { biased; () = child.stop() => {} () = async {} => {} }
    assert_eq!(stdio.read_line().await.as_deref(), Some("term"));
    // The child survived SIGTERM; its stdin is closed for us anyway.
    assert!(child.exit().is_none());
    assert_eq!(
        stdio.write_line("more").await.unwrap_err().kind(),
        std::io::ErrorKind::BrokenPipe
    );
    drop(ProcessWatch::on(child.pid()));
    soon("the stop", child.stop()).await;
}

#[tokio::test]
async fn stop_all_stops_children_concurrently() {
    let grace = Duration::from_millis(300);
    let supervisor = supervisor_with_grace(grace);
    let mut children = Vec::new();
    for _ in 0..8 {
        let child = supervisor
            .spawn(script("trap '' TERM; echo ready; while :; do sleep 0.01; done"))
            .await
            .unwrap();
        let mut stdio = ChildLines::with(&child);
        assert_eq!(stdio.read_line().await.as_deref(), Some("ready"));
        children.push((child, stdio));
    }
    assert_eq!(supervisor.live(), 8);
    let before = tokio::time::Instant::now();
    soon("all to stop", supervisor.stop_all()).await;
    assert!(before.elapsed() < grace * 8, "one after the other");
    assert!(
        children
            .iter()
            .all(|(child, _)| child.exit().unwrap().signal == Some(9))
    );
    assert_eq!(supervisor.live(), 0);
    soon("a second call", supervisor.stop_all()).await;
}

/// The state of a child's process (proc_pid_stat(5)); the name of a shell has no parentheses.
fn state(child: &Child) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    stat.split_ascii_whitespace().nth(2).unwrap().to_owned()
}
