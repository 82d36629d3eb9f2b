//! What only a whole process can show: nothing leaks, and nobody outlives a killed parent.
//!
//! The roles are tests of this binary, ignored in a regular run and started by the others as processes of their
//! own, so that descriptors, threads and children of tests that run at the same time are not counted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use supervisor::Supervisor;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::support::{ChildLines, ProcessWatch, script, soon, spec, supervisor, supervisor_with};

/// A role's process. Killed at the end should it still run.
struct Role {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl Role {
    fn start(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("leaks::{name}"), "--ignored", "--nocapture"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdout }
    }

    /// The rest of a line of its output that starts with `word`.
    fn read_line(&mut self, word: &str) -> String {
        let lines = (&mut self.stdout).lines();
        let found = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once(word)?.1.to_owned()));
        found.unwrap_or_else(|| panic!("the role never said {word:?}"))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_thousand_cycles_leave_no_descriptor_task_thread_or_child() {
    finds_nothing_leaked("role_spawn_and_stop");
}

#[test]
fn two_hundred_stops_in_the_middle_of_work_leave_no_descriptor_task_thread_or_child() {
    finds_nothing_leaked("role_stop_at_work");
}

fn finds_nothing_leaked(role: &str) {
    let mut role = Role::start(role);
    assert_eq!(role.read_line("leaked: "), "nothing");
    assert!(role.process.wait().unwrap().success());
}

#[test]
fn kill_9_of_the_parent_leaves_no_child() {
    let mut role = Role::start("role_parent");
    let eyes: Vec<ProcessWatch> = role
        .read_line("children: ")
        .split_whitespace()
        .map(|pid| ProcessWatch::on(pid.parse::<i32>().unwrap()))
        .collect();
    assert_eq!(eyes.len(), 32);
    assert!(!eyes.iter().any(ProcessWatch::is_dead));
    role.process.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    assert!(eyes.iter().all(|eye| eye.dies_within(1)));
    assert!(Instant::now() < deadline);
}

/// What a process has, and could lose track of.
#[derive(Debug, PartialEq, Eq)]
struct Possessions {
    descriptors: usize,
    threads: usize,
    tasks: usize,
    /// Whether there is any child, dead or alive.
    children: bool,
    /// FileRules and directories of children.
    leavings: usize,
}

impl Possessions {
    fn now(supervisor: &Supervisor, directory: &Path) -> Self {
        let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let lairs = std::fs::read_dir(directory).unwrap();
        Self {
            descriptors: count("/proc/self/fd".as_ref()),
            threads: count("/proc/self/task".as_ref()),
            tasks: Handle::current().metrics().num_alive_tasks() + supervisor.live(),
            children: !matches!(waitid(WaitId::All, look), Err(Errno::CHILD)),
            leavings: lairs.map(|runtime_dir| count(&runtime_dir.unwrap().path())).sum(),
        }
    }
}

/// Says whether `work` leaves anything behind. It is done once before the first look, for what comes once and
/// stays.
async fn leaks(rounds: usize, work: impl AsyncFn(&Supervisor)) {
    let directory = tempfile::tempdir().unwrap();
    let supervisor = supervisor_with(|config| config.isolation.directory = Some(directory.path().into()));
    work(&supervisor).await;
    soon("the tasks to end", nothing_lives(&supervisor)).await;
    let before = Possessions::now(&supervisor, directory.path());
    for _ in 0..rounds {
        work(&supervisor).await;
    }
    soon("the tasks to end", nothing_lives(&supervisor)).await;
    let after = Possessions::now(&supervisor, directory.path());
    let nothing = Possessions {
        tasks: 0,
        children: false,
        leavings: 0,
        ..before
    };
    if after == nothing {
        println!("leaked: nothing");
    } else {
        println!("leaked: {after:?} is not {nothing:?}");
    }
}

async fn nothing_lives(supervisor: &Supervisor) {
    while supervisor.live() > 0 || Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Ten children, of each kind of end some at the same time.
async fn cycle(supervisor: &Supervisor) {
    let asked = async {
        let asked = supervisor.spawn(spec("cat", &[])).await.unwrap();
        let mut talk = ChildLines::with(&asked);
        talk.write_line("hello").await.unwrap();
        assert_eq!(talk.read_line().await.as_deref(), Some("hello"));
        asked.stop().await;
    };
    let dropped = async {
        let dropped = supervisor.spawn(spec("cat", &[])).await.unwrap();
        let gone = dropped.done();
        drop(dropped);
        gone.cancelled().await;
    };
    let by_itself = async {
        let by_itself = supervisor
            .spawn(script("echo left > file; echo bye >&2"))
            .await
            .unwrap();
        by_itself.done().cancelled().await;
        assert_eq!(by_itself.last_stderr(), ["bye"]);
    };
    let with_stray = async {
        let with_stray = supervisor
            .spawn(script("setsid sleep 1000 & echo ready; read go"))
            .await
            .unwrap();
        assert_eq!(
            ChildLines::with(&with_stray).read_line().await.as_deref(),
            Some("ready")
        );
        with_stray.stop().await;
    };
    let refused = async {
        assert!(supervisor.spawn(spec("/no/such/program", &[])).await.is_err());
    };
    soon("the end of all", async {
        tokio::join!(asked, dropped, by_itself, with_stray, refused);
    })
    .await;
    let stop_at_once = async || supervisor.spawn(spec("cat", &[])).await.unwrap().stop().await;
    for _ in 0..3 {
        soon("the end of both", async {
            tokio::join!(stop_at_once(), stop_at_once())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_spawn_and_stop() {
    // Ten children each.
    leaks(200, cycle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_stop_at_work() {
    // Each is stopped while it reads, writes on both streams, and has 63 others beside it.
    leaks(4, async |supervisor: &Supervisor| {
        let mut children = Vec::new();
        for _ in 0..64 {
            let text = "yes to stderr >&2 & while read line; do echo $line; echo; done";
            let child = supervisor.spawn(script(text)).await.unwrap();
            let talk = ChildLines::with(&child);
            children.push((child, talk));
        }
        assert_eq!(supervisor.live(), 64);
        let work = children.iter_mut().map(async |(child, talk)| {
            talk.write_line("question").await.unwrap();
            assert_eq!(talk.read_line().await.as_deref(), Some("question"));
            // The second line of the answer is on its way, and so is another question.
            tokio::join!(child.stop(), async { drop(talk.write_line("question").await) });
        });
        soon("all stops", join_all(work)).await;
        assert!(children.iter().all(|(child, _)| child.exit().unwrap().requested));
    })
    .await;
}

/// Waits for all, at the same time.
async fn join_all(futures: impl Iterator<Item: Future<Output = ()>>) {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        waiting.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if waiting.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_parent() {
    let supervisor = supervisor();
    let mut children = Vec::new();
    for n in 0..32 {
        // Neither reads its stdin, so that the closing of pipes cannot end it; half ignore SIGTERM besides.
        let text = if n % 2 == 0 {
            "echo; exec sleep 1000"
        } else {
            "trap '' TERM HUP; echo; exec sleep 1000"
        };
        let child = supervisor.spawn(script(text)).await.unwrap();
        let mut talk = ChildLines::with(&child);
        assert!(talk.read_line().await.is_some());
        children.push((child, talk));
    }
    let pids: Vec<String> = children.iter().map(|(child, _)| child.pid().to_string()).collect();
    println!("children: {}", pids.join(" "));
    std::future::pending::<()>().await;
}
