//! Helpers of the tests. A test waits for events, never for time; the time limits here only turn a
//! hang into a failure.

use std::fmt::Debug;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use supervisor::{Child, ChildIo, ChildSpec, Config, Supervisor};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// Far more time than any event here takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A supervisor with the environment of the test and a grace period that no test should reach.
pub(crate) fn supervisor() -> Supervisor {
    supervisor_with_grace(Duration::from_secs(60))
}

pub(crate) fn supervisor_with_grace(stop_grace: Duration) -> Supervisor {
    supervisor_with(|config| config.stop_grace = stop_grace)
}

/// As [`supervisor`], with changes to the configuration.
pub(crate) fn supervisor_with(change: impl FnOnce(&mut Config)) -> Supervisor {
    let mut config = Config {
        stop_grace: Duration::from_secs(60),
        ..Config::new(std::env::vars_os())
    };
    change(&mut config);
    Supervisor::new(config).unwrap()
}

/// The spec of a role: a test of this binary that is ignored in a regular run, and that other tests
/// start as the program of a child.
pub(crate) fn role(name: &str) -> ChildSpec {
    let program = std::env::current_exe().unwrap();
    spec(
        program.to_str().unwrap(),
        &["--exact", name, "--ignored", "--nocapture"],
    )
}

/// The spec of `program` with `args`.
pub(crate) fn spec(program: &str, args: &[&str]) -> ChildSpec {
    ChildSpec {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: vec![],
        secrets: vec![],
        tag: "test".into(),
    }
}

/// The spec of a shell script. The shell is the program under test here, not a way to start it.
pub(crate) fn script(text: &str) -> ChildSpec {
    spec("/bin/sh", &["-c", text])
}

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, event)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Waits until the child is done.
pub(crate) async fn done(child: &Child) {
    soon("the child to be done", child.done().cancelled_owned()).await;
}

/// The streams of a child, line by line.
pub(crate) struct ChildLines(BufReader<ChildIo>);

impl ChildLines {
    pub(crate) fn with(child: &Child) -> Self {
        Self(BufReader::new(child.take_io().expect("the streams were not taken")))
    }

    /// The next line, or `None` at the end.
    pub(crate) async fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = soon("a line", self.0.read_line(&mut line)).await.unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next line as a number.
    pub(crate) async fn read_number(&mut self) -> i32 {
        self.read_line().await.expect("a line").parse().expect("a number")
    }

    /// The rest of the next line that contains `word`.
    pub(crate) async fn read_after(&mut self, word: &str) -> String {
        loop {
            let line = self
                .read_line()
                .await
                .unwrap_or_else(|| panic!("no line contains {word:?}"));
            if let Some((_, rest)) = line.split_once(word) {
                return rest.to_owned();
            }
        }
    }

    /// All lines until the end.
    pub(crate) async fn read_all(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.read_line().await {
            lines.push(line);
        }
        lines
    }

    pub(crate) async fn write_line(&mut self, line: &str) -> std::io::Result<()> {
        soon("a write", self.0.write_all(format!("{line}\n").as_bytes())).await
    }
}

/// Watches a process that is not a child of the test. Its drop kills the process.
pub(crate) struct ProcessWatch(OwnedFd);

/// Returns true if the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// True if children can have private users: their numbers are leased by files below `/run`.
pub(crate) fn can_lease_users() -> bool {
    is_root() && std::fs::create_dir_all("/run/supervised-users").is_ok() && tempfile::tempfile_in("/run").is_ok()
}

impl ProcessWatch {
    pub(crate) fn on(pid: impl TryInto<i32, Error: Debug>) -> Self {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        Self(pidfd_open(pid, PidfdFlags::empty()).expect("the process is alive"))
    }

    /// Returns true if the process is dead now.
    pub(crate) fn is_dead(&self) -> bool {
        self.dies_within(0)
    }

    /// Waits, blocking, until the process is dead or the time is up.
    pub(crate) fn dies_within(&self, seconds: i64) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}
