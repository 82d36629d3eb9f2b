//! Children that misuse their streams or fork without limit. Related tests: `stop` has children
//! that ignore SIGTERM or are suspended, `orphans` those that leave their group, `ready` those that
//! exit during their start or stay silent.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::support::{ChildLines, done, script, soon, spec, supervisor, supervisor_with_grace};

/// 100 MB.
const FLOOD_BYTES: usize = 100_000_000;

#[tokio::test]
async fn child_that_closes_its_stdout_and_lives_can_be_stopped() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("exec >&-; echo still here >&2; exec sleep 1000"))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await, None);
    assert!(child.exit().is_none() && !child.done().is_cancelled());
    soon("the stop", child.stop()).await;
    assert!(child.exit().unwrap().requested);
}

#[tokio::test]
async fn child_that_exits_between_two_requests_is_done() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script("read one; echo \"answer to $one\"; exit 0"))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    stdio.write_line("one").await.unwrap();
    assert_eq!(stdio.read_line().await.as_deref(), Some("answer to one"));
    done(&child).await;
    let exit = child.exit().unwrap();
    assert_eq!((exit.code, exit.requested), (Some(0), false));
    assert!(stdio.write_line("two").await.is_err());
    assert_eq!(stdio.read_line().await, None);
}

#[tokio::test]
async fn child_that_writes_much_without_a_newline_is_limited_by_its_reader() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(&format!("head -c {FLOOD_BYTES} /dev/zero; exec sleep 1000")))
        .await
        .unwrap();
    let mut io = child.take_io().unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    soon("all of it", async {
        while read < FLOOD_BYTES {
            read += io.read(&mut buffer).await.unwrap();
        }
    })
    .await;
    assert_eq!(read, FLOOD_BYTES);
    soon("the stop", child.stop()).await;
}

#[tokio::test]
async fn child_whose_output_is_not_read_can_be_stopped() {
    let supervisor = supervisor();
    let child = supervisor.spawn(spec("cat", &["/dev/zero"])).await.unwrap();
    let _unread = child.take_io().unwrap();
    soon("the stop", child.stop()).await;
    assert_eq!(child.exit().unwrap().signal, Some(15));
}

#[tokio::test]
async fn child_that_floods_stderr_is_served_and_stopped_normally() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(
            "yes 'all is lost' >&2 & while read line; do echo $line; done; wait",
        ))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    for n in 0..200 {
        stdio.write_line(&format!("request {n}")).await.unwrap();
        assert_eq!(stdio.read_line().await, Some(format!("request {n}")));
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
async fn endless_stderr_line_is_kept_as_one_truncated_line() {
    let supervisor = supervisor();
    let child = supervisor
        .spawn(script(&format!(
            "head -c {FLOOD_BYTES} /dev/zero | tr '\\0' x >&2; echo; echo end >&2"
        )))
        .await
        .unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some(""));
    done(&child).await;
    let lines = child.last_stderr();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].len(), 4096 + " [cut]".len());
}

#[tokio::test]
async fn child_that_forks_continuously_is_killed_with_all_its_forks() {
    let supervisor = supervisor_with_grace(Duration::from_millis(50));
    // Each generation leaves the session of its parent and lives for a moment.
    let text = "echo go; while :; do setsid sh -c 'trap \"\" TERM; setsid sleep 0.5 & sleep 0.5' >/dev/null 2>&1 & sleep 0.01; done";
    let child = supervisor.spawn(script(text)).await.unwrap();
    let directory = std::fs::read_link(format!("/proc/{}/cwd", child.pid())).unwrap();
    let mut stdio = ChildLines::with(&child);
    assert_eq!(stdio.read_line().await.as_deref(), Some("go"));
    soon("a dozen of them", async {
        while working_in(&directory) < 12 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("the stop", child.stop()).await;
    assert_eq!(working_in(&directory), 0);
}

/// The number of processes whose working directory is, or was, this one.
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
