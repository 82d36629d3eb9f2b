//! The one thread that spawns children.
//!
//! A child's death signal follows the thread that spawned it (see
//! [`ChildSetup`](crate::isolation::ChildSetup)), so that thread must outlive every child. It takes
//! jobs from a bounded queue and ends when the supervisor and all child tasks are gone, since each
//! of them holds a [`SpawnThread`]. It needs no join: it returns once the queue is closed.
//!
//! It also does the other work that would block an asynchronous task, on a disk or on another
//! spawn: preparing children, reaping them, and sweeping their orphans.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::child_process::ChildProcess;
use crate::clone_exec;
use crate::dumpable;
use crate::error::SpawnError;
use crate::isolation::Sandbox;
use crate::launch::{Launcher, PreparedChild};
use crate::orphans;
use crate::spec::ChildSpec;
use crate::zombie_reaper::ZombieReaper;

/// Maximum number of queued jobs. A spawn takes about a millisecond; if the queue is full, the
/// sender waits.
const QUEUE_CAPACITY: usize = 64;

/// The sender of jobs to the thread.
#[derive(Clone, Debug)]
pub(crate) struct SpawnThread {
    queue: mpsc::Sender<Job>,
    zombie_reaper: ZombieReaper,
}

type Job = Box<dyn FnOnce(&Launcher) + Send>;

/// A child that was spawned.
#[derive(Debug)]
pub(crate) struct SpawnedProcess {
    pub(crate) sandboxed: SandboxedProcess,
    pub(crate) streams: StdStreams,
}

/// A process that is not reaped yet, and its sandbox.
#[derive(Debug)]
pub(crate) struct SandboxedProcess {
    // Drops in this order, so that the sandbox is intact while the process may live.
    pub(crate) process: ChildProcess,
    pub(crate) sandbox: Sandbox,
}

/// Our ends of a child's standard streams.
#[derive(Debug)]
pub(crate) struct StdStreams {
    pub(crate) stdin: PipeWriter,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

/// A child that has been reaped.
#[derive(Debug)]
pub(crate) struct ReapedProcess {
    /// An error if other code in this process has reaped it.
    pub(crate) status: io::Result<ExitStatus>,
    pub(crate) sandbox: Sandbox,
    /// True if it, or another child that ended, has left processes behind.
    pub(crate) left_orphans: bool,
}

impl SpawnThread {
    /// Starts the thread, and that of the [`ZombieReaper`].
    pub(crate) fn start(launcher: Launcher) -> io::Result<Self> {
        let zombie_reaper = ZombieReaper::start(launcher.plan.marks_children())?;
        let (queue, mut jobs) = mpsc::channel::<Job>(QUEUE_CAPACITY);
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                job(&launcher);
            }
        })?;
        Ok(Self { queue, zombie_reaper })
    }

    /// Spawns a child.
    pub(crate) async fn spawn(&self, spec: ChildSpec) -> Result<SpawnedProcess, SpawnError> {
        let zombie_reaper = self.zombie_reaper.clone();
        let spawned = self.run(move |launcher| {
            let spawned = spawn(launcher, &spec);
            zombie_reaper.wake();
            spawned
        });
        let spawned = spawned.await;
        spawned.ok_or_else(panicked)?
    }

    /// Looks up the program of a spec.
    pub(crate) async fn find_program(&self, spec: ChildSpec) -> Result<PathBuf, SpawnError> {
        let found = self.run(move |launcher| launcher.find_program(&spec)).await;
        found.ok_or_else(panicked)?
    }

    /// Kills the group of a child that has ended, reaps the child, and sweeps the orphans.
    pub(crate) async fn finish(&self, sandboxed: SandboxedProcess) -> Option<ReapedProcess> {
        self.run(|launcher| {
            let SandboxedProcess { process, sandbox } = sandboxed;
            process.kill();
            sandbox.kill_all();
            let status = process.reap();
            let left_orphans = !orphans::sweep(launcher.plan.marks_children()).is_empty();
            ReapedProcess {
                status,
                sandbox,
                left_orphans,
            }
        })
        .await
    }

    /// Kills and reaps orphans of children and returns their pids.
    pub(crate) async fn sweep(&self) -> BTreeSet<i32> {
        let swept = self.run(|launcher| orphans::sweep(launcher.plan.marks_children()));
        swept.await.unwrap_or_default()
    }

    /// Runs `job` on the thread. Returns `None` if the thread has panicked, which drops the job and
    /// so ends its child. If the caller is gone because the runtime is, the result is dropped
    /// likewise.
    async fn run<T: Send + 'static>(&self, job: impl FnOnce(&Launcher) -> T + Send + 'static) -> Option<T> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |launcher| drop(reply.send(job(launcher))));
        self.queue.send(job).await.ok()?;
        result.await.ok()
    }
}

impl StdStreams {
    /// Our ends, and the child's in the order of their numbers. None of the latter is a standard
    /// stream of this process, even if this process has none.
    fn new() -> io::Result<(Self, [OwnedFd; 3])> {
        let ((child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr)) =
            (io::pipe()?, io::pipe()?, io::pipe()?);
        let above = |end: OwnedFd| Ok::<_, io::Error>(rustix::io::fcntl_dupfd_cloexec(&end, 3)?);
        let child_ends = [
            above(child_stdin.into())?,
            above(child_stdout.into())?,
            above(child_stderr.into())?,
        ];
        Ok((Self { stdin, stdout, stderr }, child_ends))
    }
}

fn panicked() -> SpawnError {
    SpawnError::Os(io::Error::other("the thread that spawns children panicked"))
}

fn spawn(launcher: &Launcher, spec: &ChildSpec) -> Result<SpawnedProcess, SpawnError> {
    let PreparedChild { image, setup, sandbox } = launcher.prepare(spec)?;
    let (streams, child_ends) = StdStreams::new().map_err(SpawnError::from_system)?;
    let spawned = orphans::spawn(|| {
        let spawn = || clone_exec::spawn(&image, child_ends.each_ref().map(AsFd::as_fd), &|| setup.apply());
        // The child changes its user while it shares our memory.
        if setup.user.is_some() {
            dumpable::preserved(spawn)
        } else {
            spawn()
        }
    });
    let (pid, pidfd) = spawned.map_err(|error| SpawnError::from_setup(&spec.program, error))?;
    let process = ChildProcess::new(pid, pidfd, launcher.plan.marks_children());
    Ok(SpawnedProcess {
        sandboxed: SandboxedProcess { process, sandbox },
        streams,
    })
}
