//! Leaks of a whole process: descriptors, tasks, threads, children, files; and children of a killed
//! parent.
//!
//! The roles are tests of this binary, ignored in a regular run. The other tests start them as
//! separate processes, so that the resources of concurrent tests are not counted.

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

use crate::support::{ChildLines, ProcessWatch, role, script, soon, spec, supervisor, supervisor_with};

/// The process of a role. Its drop kills it.
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

    /// The rest of the next line of its output that contains `word`.
    fn read_after(&mut self, word: &str) -> String {
        let lines = (&mut self.stdout).lines();
        let found = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once(word)?.1.to_owned()));
        found.unwrap_or_else(|| panic!("no line contains {word:?}"))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_thousand_spawns_leak_no_descriptor_task_thread_or_child() {
    assert_nothing_leaked("role_spawn_and_stop");
}

#[test]
fn two_hundred_stops_during_work_leak_no_descriptor_task_thread_or_child() {
    assert_nothing_leaked("role_stop_at_work");
}

#[test]
fn zombies_of_a_running_child_are_reaped() {
    let mut role = Role::start("role_parent_of_zombies");
    assert_eq!(role.read_after("zombies: "), "none");
    assert!(role.process.wait().unwrap().success());
}

fn assert_nothing_leaked(role: &str) {
    let mut role = Role::start(role);
    assert_eq!(role.read_after("leaked: "), "nothing");
    assert!(role.process.wait().unwrap().success());
}

#[test]
fn sigkill_of_the_parent_leaves_no_child() {
    let mut role = Role::start("role_parent");
    let processes: Vec<ProcessWatch> = role
        .read_after("children: ")
        .split_whitespace()
        .map(|pid| ProcessWatch::on(pid.parse::<i32>().unwrap()))
        .collect();
    assert_eq!(processes.len(), 32);
    assert!(!processes.iter().any(ProcessWatch::is_dead));
    role.process.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    assert!(processes.iter().all(|process| process.dies_within(1)));
    assert!(Instant::now() < deadline);
}

/// The resources of a process that could leak.
#[derive(Debug, PartialEq, Eq)]
struct Resources {
    descriptors: usize,
    threads: usize,
    tasks: usize,
    /// True if there is any child, dead or alive.
    children: bool,
    /// Files and directories of children.
    files: usize,
}

impl Resources {
    fn now(supervisor: &Supervisor, directory: &Path) -> Self {
        let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let runtime_dirs = std::fs::read_dir(directory).unwrap();
        Self {
            descriptors: count("/proc/self/fd".as_ref()),
            threads: count("/proc/self/task".as_ref()),
            tasks: Handle::current().metrics().num_alive_tasks() + supervisor.live(),
            children: !matches!(waitid(WaitId::All, look), Err(Errno::CHILD)),
            files: runtime_dirs
                .map(|runtime_dir| count(&runtime_dir.unwrap().path()))
                .sum(),
        }
    }
}

/// Prints whether `work` leaks. Runs it once before the first count, for resources that are created
/// once and stay.
async fn leaks(rounds: usize, work: impl AsyncFn(&Supervisor)) {
    let directory = tempfile::tempdir().unwrap();
    let supervisor = supervisor_with(|config| config.isolation.directory = Some(directory.path().into()));
    work(&supervisor).await;
    soon("the tasks to end", no_task_is_left(&supervisor)).await;
    let before = Resources::now(&supervisor, directory.path());
    for _ in 0..rounds {
        work(&supervisor).await;
    }
    soon("the tasks to end", no_task_is_left(&supervisor)).await;
    let after = Resources::now(&supervisor, directory.path());
    let nothing = Resources {
        tasks: 0,
        children: false,
        files: 0,
        ..before
    };
    if after == nothing {
        println!("leaked: nothing");
    } else {
        println!("leaked: {after:?} is not {nothing:?}");
    }
}

async fn no_task_is_left(supervisor: &Supervisor) {
    while supervisor.live() > 0 || Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Ten children, with concurrent exits of every kind.
async fn cycle(supervisor: &Supervisor) {
    let stopped = async {
        let stopped = supervisor.spawn(spec("cat", &[])).await.unwrap();
        let mut stdio = ChildLines::with(&stopped);
        stdio.write_line("hello").await.unwrap();
        assert_eq!(stdio.read_line().await.as_deref(), Some("hello"));
        stopped.stop().await;
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
    let with_orphan = async {
        let with_orphan = supervisor
            .spawn(script("setsid sleep 1000 & echo ready; read go"))
            .await
            .unwrap();
        assert_eq!(
            ChildLines::with(&with_orphan).read_line().await.as_deref(),
            Some("ready")
        );
        with_orphan.stop().await;
    };
    let rejected = async {
        assert!(supervisor.spawn(spec("/no/such/program", &[])).await.is_err());
    };
    soon("the end of all", async {
        tokio::join!(stopped, dropped, by_itself, with_orphan, rejected);
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
    // Each round has ten children.
    leaks(200, cycle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_stop_at_work() {
    // Each child is stopped while it reads and writes on both streams, beside 63 others.
    leaks(4, async |supervisor: &Supervisor| {
        let mut children = Vec::new();
        for _ in 0..64 {
            let text = "yes to stderr >&2 & while read line; do echo $line; echo; done";
            let child = supervisor.spawn(script(text)).await.unwrap();
            let stdio = ChildLines::with(&child);
            children.push((child, stdio));
        }
        assert_eq!(supervisor.live(), 64);
        let work = children.iter_mut().map(async |(child, stdio)| {
            stdio.write_line("question").await.unwrap();
            assert_eq!(stdio.read_line().await.as_deref(), Some("question"));
            // The second line of the answer and another question are in transit.
            tokio::join!(child.stop(), async { drop(stdio.write_line("question").await) });
        });
        soon("all stops", join_all(work)).await;
        assert!(children.iter().all(|(child, _)| child.exit().unwrap().requested));
    })
    .await;
}

/// Waits for all, concurrently.
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
async fn role_parent_of_zombies() {
    let supervisor = supervisor();
    let child = supervisor.spawn(role("leaks::role_orphaning")).await.unwrap();
    let mut stdio = ChildLines::with(&child);
    stdio.read_after("orphaned").await;
    // The first thread gets the orphans; the child belongs to the thread that spawned it.
    let orphans = || std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    let count_becomes = async |expected| {
        while orphans().split_whitespace().count() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the orphans to be ours", count_becomes(8)).await;
    stdio.write_line("end them").await.unwrap();
    soon("the end of all orphans", count_becomes(0)).await;
    assert!(child.exit().is_none(), "the child runs on");
    println!("zombies: none");
}

#[test]
#[ignore = "a role that another test starts as a child"]
fn role_orphaning() {
    rustix::process::set_child_subreaper(None).unwrap();
    // Each orphan ends with a byte of the input.
    let text = "for n in 1 2 3 4 5 6 7 8; do (head -c 1 > /dev/null <&3 &); done 3<&0";
    let status = Command::new("/bin/sh").args(["-c", text]).status().unwrap();
    assert!(status.success());
    println!("orphaned");
    loop {
        std::thread::park();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_parent() {
    let supervisor = supervisor();
    let mut children = Vec::new();
    for n in 0..32 {
        // None reads its stdin, so closed pipes cannot end it; half of them ignore SIGTERM too.
        let text = if n % 2 == 0 {
            "echo; exec sleep 1000"
        } else {
            "trap '' TERM HUP; echo; exec sleep 1000"
        };
        let child = supervisor.spawn(script(text)).await.unwrap();
        let mut stdio = ChildLines::with(&child);
        assert!(stdio.read_line().await.is_some());
        children.push((child, stdio));
    }
    let pids: Vec<String> = children.iter().map(|(child, _)| child.pid().to_string()).collect();
    println!("children: {}", pids.join(" "));
    std::future::pending::<()>().await;
}
