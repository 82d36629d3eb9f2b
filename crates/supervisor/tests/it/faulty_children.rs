//! Children that do what no server should. What ignores SIGTERM, or is suspended, is in `stop`; what leaves its
//! group in `orphans`; what exits during its start, or never talks, in `ready`.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::support::{ChildLines, done, script, soon, spec, supervisor, supervisor_with_grace};

/// 100 MB.
const MUCH: usize = 100_000_000;

#[tokio::test]
async fn a_child_that_closes_its_stdout_and_lives_can_be_seen_and_stopped() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("exec >&-; echo still here >&2; exec sleep 1000"))
        .await
        .unwrap();
    let mut talk = ChildLines::with(&child);
    assert_eq!(talk.read_line().await, None);
    assert!(child.exit().is_none() && !child.done().is_cancelled());
    soon("the stop", child.stop()).await;
    assert!(child.exit().unwrap().requested);
}

#[tokio::test]
async fn a_child_that_exits_between_two_requests_is_done() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("read one; echo \"answer to $one\"; exit 0"))
        .await
        .unwrap();
    let mut talk = ChildLines::with(&child);
    talk.write_line("one").await.unwrap();
    assert_eq!(talk.read_line().await.as_deref(), Some("answer to one"));
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.requested), (Some(0), false));
    assert!(talk.write_line("two").await.is_err());
    assert_eq!(talk.read_line().await, None);
}

#[tokio::test]
async fn a_child_that_writes_much_without_a_newline_is_held_back_by_its_reader() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(&format!("head -c {MUCH} /dev/zero; exec sleep 1000")))
        .await
        .unwrap();
    let mut io = child.take_io().unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    soon("all of it", async {
        while read < MUCH {
            read += io.read(&mut buffer).await.unwrap();
        }
    })
    .await;
    assert_eq!(read, MUCH);
    soon("the stop", child.stop()).await;
}

#[tokio::test]
async fn a_child_that_writes_much_and_is_not_read_can_be_stopped() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &["/dev/zero"])).await.unwrap();
    let _unread = child.take_io().unwrap();
    soon("the stop", child.stop()).await;
    assert_eq!(child.exit().unwrap().signal, Some(15));
}

#[tokio::test]
async fn a_child_that_floods_stderr_at_full_speed_is_served_and_stopped_like_any_other() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(
            "yes 'all is lost' >&2 & while read line; do echo $line; done; wait",
        ))
        .await
        .unwrap();
    let mut talk = ChildLines::with(&child);
    for n in 0..200 {
        talk.write_line(&format!("request {n}")).await.unwrap();
        assert_eq!(talk.read_line().await, Some(format!("request {n}")));
    }
    soon("the flood", async {
        while child.last_stderr().len() < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let lines = child.last_stderr();
    assert!(lines.iter().all(|line| line == "all is lost"));
    soon("the stop", child.stop()).await;
}

#[tokio::test]
async fn a_child_that_writes_much_to_stderr_without_a_newline_costs_one_line() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(&format!(
            "head -c {MUCH} /dev/zero | tr '\\0' x >&2; echo; echo end >&2"
        )))
        .await
        .unwrap();
    let mut talk = ChildLines::with(&child);
    assert_eq!(talk.read_line().await.as_deref(), Some(""));
    done(&child).await;
    let lines = child.last_stderr();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].len(), 4096 + " [cut]".len());
}

#[tokio::test]
async fn a_child_that_forks_as_fast_as_it_can_is_ended_with_all_that_it_forked() {
    let supervisor = supervisor_with_grace(Duration::from_millis(50));
    // Every generation leaves the session of the one before it and lives for a moment.
    let text = "echo go; while :; do setsid sh -c 'trap \"\" TERM; setsid sleep 0.5 & sleep 0.5' >/dev/null 2>&1 & sleep 0.01; done";
    let child = supervisor.spawn(script(text)).await.unwrap();
    let directory = std::fs::read_link(format!("/proc/{}/cwd", child.pid())).unwrap();
    let mut talk = ChildLines::with(&child);
    assert_eq!(talk.read_line().await.as_deref(), Some("go"));
    soon("a dozen of them", async {
        while working_in(&directory) < 12 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("the stop", child.stop()).await;
    assert_eq!(working_in(&directory), 0);
}

/// How many processes work in a directory that is, or was, this one.
fn working_in(directory: &std::path::Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let places = processes.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
    places
        .filter(|place| {
            place
                .as_os_str()
                .to_string_lossy()
                .starts_with(directory.to_str().unwrap())
        })
        .count()
}
