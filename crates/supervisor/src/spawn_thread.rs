//! The one thread that starts children.
//!
//! A child's death signal follows the thread that started it (see [`ChildSetup`](crate::isolation::ChildSetup)), so that
//! thread must live at least as long as every child. This one takes work from a bounded queue and ends only when
//! the supervisor and all the tasks that watch children are gone, since each of them holds a [`SpawnThread`]. It owns
//! nothing that needs to be joined: once the queue is closed it returns.
//!
//! It also does what else must not happen in an asynchronous task, since it waits for a disk or for another child
//! to start: preparing children, reaping them, looking for what they left behind.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;

use rustix::process::{dumpable_behavior, set_dumpable_behavior};
use tokio::sync::{mpsc, oneshot};

use crate::child_process::ChildProcess;
use crate::clone_exec;
use crate::error::SpawnError;
use crate::isolation::Sandbox;
use crate::launch::{Launch, Launcher};
use crate::orphans;
use crate::spec::ChildSpec;

/// Job that may wait for the thread. A start takes a millisecond or so; whoever comes when the queue is full
/// waits for a place.
const QUEUE_CAPACITY: usize = 64;

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct SpawnThread {
    queue: mpsc::Sender<Job>,
}

/// A child that was started.
#[derive(Debug)]
pub(crate) struct SpawnedProcess {
    pub(crate) held: SandboxedProcess,
    pub(crate) streams: StdStreams,
}

/// A process that is to be reaped, and what belongs to it.
#[derive(Debug)]
pub(crate) struct SandboxedProcess {
    // In the order in which they are dropped: nothing is taken from a child that may live.
    pub(crate) child_process: ChildProcess,
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
    /// An error if something else in this process has reaped it.
    pub(crate) status: io::Result<ExitStatus>,
    pub(crate) sandbox: Sandbox,
    /// Whether neither it nor another child that ended has left processes behind.
    pub(crate) clean: bool,
}

#[derive(Debug)]
enum Job {
    Start {
        spec: ChildSpec,
        reply: oneshot::Sender<Result<SpawnedProcess, SpawnError>>,
    },
    Finish {
        held: SandboxedProcess,
        reply: oneshot::Sender<ReapedProcess>,
    },
    Sweep {
        reply: oneshot::Sender<BTreeSet<i32>>,
    },
}

impl SpawnThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system refuses it.
    pub(crate) fn start(launcher: Arc<Launcher>) -> io::Result<Self> {
        let (queue, mut orders) = mpsc::channel::<Job>(QUEUE_CAPACITY);
        thread::Builder::new().name("spawn_thread".to_owned()).spawn(move || {
            while let Some(work) = orders.blocking_recv() {
                do_work(&launcher, work);
            }
        })?;
        Ok(Self { queue })
    }

    /// Starts a child.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::spawn`](crate::Supervisor::spawn).
    pub(crate) async fn spawn(&self, spec: ChildSpec) -> Result<SpawnedProcess, SpawnError> {
        let started = self.ask(|reply| Job::Start { spec, reply }).await;
        started.ok_or_else(|| SpawnError::Os(gone()))?
    }

    /// Kills the group of a child that has ended, reaps the child, and kills what it left behind.
    pub(crate) async fn finish(&self, held: SandboxedProcess) -> Option<ReapedProcess> {
        self.ask(|reply| Job::Finish { held, reply }).await
    }

    /// Kills and reaps what children left behind; tells which processes it found.
    pub(crate) async fn sweep(&self) -> BTreeSet<i32> {
        self.ask(|reply| Job::Sweep { reply }).await.unwrap_or_default()
    }

    /// Nothing comes back if the thread has panicked. What it was given is dropped then, a child is ended.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (reply, result) = oneshot::channel();
        self.queue.send(work(reply)).await.ok()?;
        result.await.ok()
    }
}

impl StdStreams {
    /// Our ends, and the child's in the order of their numbers. None of the latter is a standard stream of this
    /// process, even if this one has none.
    fn new() -> io::Result<(Self, [OwnedFd; 3])> {
        let ((stdin_theirs, stdin), (stdout, stdout_theirs), (stderr, stderr_theirs)) =
            (io::pipe()?, io::pipe()?, io::pipe()?);
        let above = |end: OwnedFd| Ok::<_, io::Error>(rustix::io::fcntl_dupfd_cloexec(&end, 3)?);
        let theirs = [
            above(stdin_theirs.into())?,
            above(stdout_theirs.into())?,
            above(stderr_theirs.into())?,
        ];
        Ok((Self { stdin, stdout, stderr }, theirs))
    }
}

fn do_work(launcher: &Launcher, work: Job) {
    let no_new_privs = launcher.plan.marks_children();
    // Where nobody waits for the reply any more, since the runtime is gone, it comes back and its drop ends the
    // child.
    match work {
        Job::Start { spec, reply } => {
            let _ = reply.send(start(launcher, &spec));
        }
        Job::Finish { held, reply } => {
            let SandboxedProcess { child_process, sandbox } = held;
            child_process.kill();
            sandbox.end_all();
            let status = child_process.reap();
            let clean = orphans::sweep(no_new_privs).is_empty();
            let _ = reply.send(ReapedProcess { status, sandbox, clean });
        }
        Job::Sweep { reply } => {
            let _ = reply.send(orphans::sweep(no_new_privs));
        }
    }
}

fn start(launcher: &Launcher, spec: &ChildSpec) -> Result<SpawnedProcess, SpawnError> {
    let Launch { image, steps, sandbox } = launcher.prepare(spec)?;
    let (streams, theirs) = StdStreams::new().map_err(SpawnError::from_system)?;
    let started = orphans::start(|| {
        // A child that becomes another user while it shares our memory makes that memory one that may not be
        // dumped, which is ours to write_line (`commit_creds` of kernel/cred.c).
        let before = dumpable_behavior();
        let started = clone_exec::start(&image, theirs.each_ref().map(AsFd::as_fd), &steps);
        if let (Some(_), Ok(before)) = (steps.user, before) {
            let _ = set_dumpable_behavior(before);
        }
        started
    });
    let (pid, pidfd) = started.map_err(|failure| SpawnError::from_failure(&spec.program, failure))?;
    let child_process = ChildProcess::new(pid, pidfd, launcher.plan.marks_children());
    Ok(SpawnedProcess {
        held: SandboxedProcess { child_process, sandbox },
        streams,
    })
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts children is gone")
}
