//! What only a whole process can show: nothing leaks, and nobody outlives a killed parent.
//!
//! The roles are tests of this binary, ignored in a regular run and started by the others as processes of their
//! own, so that descriptors, threads and children of tests that run at the same time are not counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use supervisor::Supervisor;

use crate::support::{Eye, Talk, order, script, soon, supervisor, supervisor_with_grace};

/// A role's process. Killed at the end should it still run.
struct Role {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl Role {
    fn start(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("process::{name}"), "--ignored", "--nocapture"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, stdout }
    }

    /// The rest of a line of its output that starts with `word`.
    fn hear(&mut self, word: &str) -> String {
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
fn two_hundred_cycles_leave_no_descriptor_thread_or_child() {
    let mut role = Role::start("role_spawn_and_stop");
    let said = role.hear("leaked: ");
    assert_eq!(said, "nothing");
    assert!(role.process.wait().unwrap().success());
}

#[test]
fn kill_9_of_the_parent_leaves_no_child() {
    let mut role = Role::start("role_parent");
    let eyes: Vec<Eye> = role
        .hear("children: ")
        .split_whitespace()
        .map(|pid| Eye::on(pid.parse::<i32>().unwrap()))
        .collect();
    assert_eq!(eyes.len(), 8);
    assert!(!eyes.iter().any(Eye::sees_death));
    role.process.kill().unwrap();
    assert!(eyes.iter().all(|eye| eye.sees_death_within(5)));
}

/// Open descriptors, threads, and whether there is any child, dead or alive.
fn possessions() -> (usize, usize, bool) {
    let count = |dir| std::fs::read_dir(dir).unwrap().count();
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let children = !matches!(waitid(WaitId::All, look), Err(Errno::CHILD));
    (count("/proc/self/fd"), count("/proc/self/task"), children)
}

/// One child of each kind of end at the same time.
async fn cycle(supervisor: &Supervisor) {
    let asked = supervisor.spawn(order("cat", &[])).await.unwrap();
    let mut talk = Talk::with(&asked);
    talk.say("hello").await.unwrap();
    assert_eq!(talk.hear().await.as_deref(), Some("hello"));
    let by_itself = supervisor.spawn(script("echo bye >&2")).await.unwrap();
    let dropped = supervisor.spawn(order("cat", &[])).await.unwrap();
    let gone = dropped.done();
    drop(dropped);
    let refused = supervisor.spawn(order("/no/such/program", &[])).await;
    assert!(refused.is_err());
    soon("the end of all", async {
        tokio::join!(asked.stop(), by_itself.done().cancelled_owned(), gone.cancelled());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_spawn_and_stop() {
    let supervisor = supervisor();
    cycle(&supervisor).await;
    let before = possessions();
    for _ in 0..67 {
        cycle(&supervisor).await;
    }
    soon("the tasks to end", async {
        while supervisor.live() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let after = possessions();
    if before == after && !after.2 {
        println!("leaked: nothing");
    } else {
        println!("leaked: (descriptors, threads, children) were {before:?} and are {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a role that another test starts as a process of its own"]
async fn role_parent() {
    let supervisor = supervisor_with_grace(std::time::Duration::from_secs(60));
    let mut children = Vec::new();
    for n in 0..8 {
        // Neither reads its stdin, so that the closing of pipes cannot end it; half ignore SIGTERM besides.
        let text = if n % 2 == 0 {
            "exec sleep 1000"
        } else {
            "trap '' TERM HUP; exec sleep 1000"
        };
        children.push(supervisor.spawn(script(text)).await.unwrap());
    }
    let pids: Vec<String> = children.iter().map(|child| child.pid().to_string()).collect();
    println!("children: {}", pids.join(" "));
    std::future::pending::<()>().await;
}
