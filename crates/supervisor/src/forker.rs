//! The one thread that starts children.
//!
//! A child's death signal follows the thread that started it (see [`Steps`](crate::isolation::Steps)), so that
//! thread must live at least as long as every child. This one takes work from a bounded queue and ends only when
//! the supervisor and all the tasks that watch children are gone, since each of them holds a [`Forker`]. It owns
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

use crate::error::SpawnError;
use crate::isolation::Room;
use crate::launch::{Launch, Launcher};
use crate::leash::Leash;
use crate::order::Order;
use crate::orphans;
use crate::raw;

/// Work that may wait for the thread. A start takes a millisecond or so; whoever comes when the queue is full
/// waits for a place.
const QUEUE: usize = 64;

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Forker {
    queue: mpsc::Sender<Work>,
}

/// A child that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) held: Held,
    pub(crate) streams: Streams,
}

/// A process that is to be reaped, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Held {
    // In the order in which they are dropped: nothing is taken from a child that may live.
    pub(crate) leash: Leash,
    pub(crate) room: Room,
}

/// Our ends of a child's standard streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: PipeWriter,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

/// A child that has been reaped.
#[derive(Debug)]
pub(crate) struct Reaped {
    /// An error if something else in this process has reaped it.
    pub(crate) status: io::Result<ExitStatus>,
    pub(crate) room: Room,
    /// Whether neither it nor another child that ended has left processes behind.
    pub(crate) clean: bool,
}

#[derive(Debug)]
enum Work {
    Start {
        order: Order,
        reply: oneshot::Sender<Result<Started, SpawnError>>,
    },
    Finish {
        held: Held,
        reply: oneshot::Sender<Reaped>,
    },
    Sweep {
        reply: oneshot::Sender<BTreeSet<i32>>,
    },
}

impl Forker {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system refuses it.
    pub(crate) fn start(launcher: Arc<Launcher>) -> io::Result<Self> {
        let (queue, mut orders) = mpsc::channel::<Work>(QUEUE);
        thread::Builder::new().name("forker".to_owned()).spawn(move || {
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
    pub(crate) async fn spawn(&self, order: Order) -> Result<Started, SpawnError> {
        let started = self.ask(|reply| Work::Start { order, reply }).await;
        started.ok_or_else(|| SpawnError::Os(gone()))?
    }

    /// Kills the group of a child that has ended, reaps the child, and kills what it left behind.
    pub(crate) async fn finish(&self, held: Held) -> Option<Reaped> {
        self.ask(|reply| Work::Finish { held, reply }).await
    }

    /// Kills and reaps what children left behind; tells which processes it found.
    pub(crate) async fn sweep(&self) -> BTreeSet<i32> {
        self.ask(|reply| Work::Sweep { reply }).await.unwrap_or_default()
    }

    /// Nothing comes back if the thread has panicked. What it was given is dropped then, a child is ended.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Option<T> {
        let (reply, result) = oneshot::channel();
        self.queue.send(work(reply)).await.ok()?;
        result.await.ok()
    }
}

impl Streams {
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

fn do_work(launcher: &Launcher, work: Work) {
    let marked = launcher.plan.marks_children();
    // Where nobody waits for the reply any more, since the runtime is gone, it comes back and its drop ends the
    // child.
    match work {
        Work::Start { order, reply } => {
            let _ = reply.send(start(launcher, &order));
        }
        Work::Finish { held, reply } => {
            let Held { leash, room } = held;
            leash.kill();
            room.end_all();
            let status = leash.reap();
            let clean = orphans::sweep(marked).is_empty();
            let _ = reply.send(Reaped { status, room, clean });
        }
        Work::Sweep { reply } => {
            let _ = reply.send(orphans::sweep(marked));
        }
    }
}

fn start(launcher: &Launcher, order: &Order) -> Result<Started, SpawnError> {
    let Launch { image, steps, room } = launcher.prepare(order)?;
    let (streams, theirs) = Streams::new().map_err(SpawnError::from_system)?;
    let started = orphans::start(|| {
        // A child that becomes another user while it shares our memory makes that memory one that may not be
        // dumped, which is ours to say (`commit_creds` of kernel/cred.c).
        let before = dumpable_behavior();
        let started = raw::start(&image, theirs.each_ref().map(AsFd::as_fd), &steps);
        if let (Some(_), Ok(before)) = (steps.user, before) {
            let _ = set_dumpable_behavior(before);
        }
        started
    });
    let (pid, pidfd) = started.map_err(|failure| SpawnError::from_failure(&order.program, failure))?;
    let leash = Leash::new(pid, pidfd, launcher.plan.marks_children());
    Ok(Started {
        held: Held { leash, room },
        streams,
    })
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts children is gone")
}
