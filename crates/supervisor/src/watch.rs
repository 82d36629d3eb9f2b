//! The task that owns one child from its start to its end.
//!
//! It is the only owner of the [`Leash`], so every way out of it reaps: the regular one below, and the drop of
//! the leash if the runtime drops the task. The order at the end is fixed, and the safety of the signals rests
//! on it (see [`leash`](crate::leash)): the first process has ended and is not reaped, SIGKILL to the group,
//! reap, end what left the group, read what is left of standard error, remove its directory, tell the exit, fire
//! `done`.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use std::{future::Future, io};

use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::child::{Child, Exit, Life};
use crate::error::SpawnError;
use crate::forker::{Forker, Held, Started};
use crate::io::{ChildIo, Outlet, Stdin};
use crate::leash::{Ending, Leash};
use crate::order::Order;
use crate::stderr::{self, LogLimits, Tail};
use crate::stopping::{Step, Stopping};

/// How long to wait for processes that were killed. Only one that hangs in the kernel takes so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to go on killing as long as new ones turn up.
const PERSISTENCE: Duration = Duration::from_secs(10);

/// Everything that the task needs to know.
pub(crate) struct Watch {
    pub(crate) forker: Forker,
    pub(crate) tail: Tail,
    pub(crate) tag: Arc<str>,
    pub(crate) stop_grace: Duration,
    pub(crate) log_limits: LogLimits,
    pub(crate) life: Life,
}

/// A process as the policy of stopping sees it. The tests script one.
trait Stoppable {
    /// Waits until it has ended and is to be reaped. Cancel safe.
    fn ended(&self) -> impl Future<Output = ()> + Send;
    fn close_stdin(&self);
    fn terminate(&self);
    fn kill(&self);
}

/// A process on its leash.
struct Leashed<'a> {
    leash: &'a Leash,
    ending: &'a Ending,
    stdin: &'a Stdin,
}

/// The process and its streams, ready for the runtime.
struct Ready {
    held: Held,
    ending: Ending,
    stdin: Arc<Stdin>,
    stdout: Outlet,
    stderr: Outlet,
}

impl Watch {
    /// Starts the child, answers with its handle, and stays with it until it is gone.
    pub(crate) async fn run(self, order: Order, answer: oneshot::Sender<Result<Child, SpawnError>>) {
        // However this ends, nobody waits for the child for ever.
        let _done = self.life.done.clone().drop_guard();
        let gone = CancellationToken::new();
        let started = self.forker.spawn(order).await;
        let ready = started.and_then(|started| Ready::new(started, &gone).map_err(SpawnError::from_system));
        let Ready {
            held,
            ending,
            stdin,
            stdout,
            stderr,
        } = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        let since = Instant::now();
        let pid = held.leash.group().as_raw_nonzero();
        tracing::debug!(tag = &*self.tag, pid, "child started");

        let io = ChildIo::new(Arc::clone(&stdin), stdout);
        let child = Child::new(pid.get().unsigned_abs(), io, self.tail.clone(), self.life.clone());
        // If the caller no longer waits, the handle is dropped here, which asks for the stop.
        let _ = answer.send(Ok(child));

        let pump = stderr::pump(stderr, self.log_limits, &self.tag, &self.tail);
        let life = async {
            let mut stopping = Stopping::new(self.stop_grace);
            let process = Leashed {
                leash: &held.leash,
                ending: &ending,
                stdin: &stdin,
            };
            until_ended(&process, &mut stopping, &self.life.stop, &self.tag).await;
            let lived = since.elapsed();
            stdin.close();
            let reaped = self.forker.finish(held).await;
            if reaped.as_ref().is_some_and(|reaped| !reaped.clean) {
                self.until_nothing_is_left().await;
            }
            gone.cancel();
            let (status, room) = reaped.map(|reaped| (reaped.status, reaped.room)).unzip();
            (exit(status, lived, stopping.asked()), room)
        };
        let ((exit, room), ()) = tokio::join!(life, pump);
        if let Some(room) = room.filter(|room| !room.is_left_empty()) {
            // Removing what a child left may take any time.
            let span = Span::current();
            let _ = spawn_blocking(move || span.in_scope(|| drop(room))).await;
        }
        tracing::debug!(
            tag = &*self.tag,
            pid,
            code = exit.code,
            signal = exit.signal,
            lived_ms = exit.lived.as_millis(),
            requested = exit.requested,
            "child ended"
        );
        // Only this task sets it, once.
        let _ = self.life.exit.set(exit);
    }

    /// Waits until nothing is left of what the child started, or until patience ends.
    async fn until_nothing_is_left(&self) {
        let end = Instant::now() + PERSISTENCE;
        let mut deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        let mut known = BTreeSet::new();
        loop {
            let left = self.forker.sweep().await;
            if left.is_empty() {
                return;
            }
            if !left.is_subset(&known) {
                deadline = end.min(Instant::now() + PATIENCE);
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    tag = &*self.tag,
                    left = left.len(),
                    "processes that children left behind were killed and do not end"
                );
                return;
            }
            known = left;
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl Ready {
    /// On failure the child is ended, by the drop of its leash.
    fn new(started: Started, gone: &CancellationToken) -> io::Result<Self> {
        let Started { held, streams } = started;
        let stdout = pipe::Receiver::from_owned_fd(streams.stdout.into())?;
        let stderr = pipe::Receiver::from_owned_fd(streams.stderr.into())?;
        Ok(Self {
            ending: held.leash.ending()?,
            stdin: Arc::new(Stdin::new(pipe::Sender::from_owned_fd(streams.stdin.into())?)),
            stdout: Outlet::new(stdout, gone.clone()),
            stderr: Outlet::new(stderr, gone.clone()),
            held,
        })
    }
}

impl Stoppable for Leashed<'_> {
    fn ended(&self) -> impl Future<Output = ()> + Send {
        self.ending.wait()
    }

    fn close_stdin(&self) {
        self.stdin.close();
    }

    fn terminate(&self) {
        self.leash.terminate();
    }

    fn kill(&self) {
        self.leash.kill();
    }
}

/// Waits until the process has ended, and takes the steps of stopping it once that is asked for.
async fn until_ended(process: &impl Stoppable, stopping: &mut Stopping, stop: &CancellationToken, tag: &str) {
    loop {
        while let Some(step) = stopping.due(Instant::now()) {
            match step {
                Step::CloseStdin => process.close_stdin(),
                Step::Terminate => process.terminate(),
                Step::Kill => {
                    tracing::info!(tag, "the child did not end in time and is killed");
                    process.kill();
                }
                Step::KillAgain => {
                    tracing::warn!(tag, "the child was killed and does not end");
                    process.kill();
                }
            }
        }
        let wake_at = stopping.wake_at();
        tokio::select! {
            biased;
            () = process.ended() => return,
            () = stop.cancelled(), if !stopping.asked() => stopping.ask(),
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
        }
    }
}

fn exit(status: Option<io::Result<ExitStatus>>, lived: Duration, requested: bool) -> Exit {
    let status = status.and_then(Result::ok);
    Exit {
        code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        lived,
        requested,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    /// A process that ends upon the step that the script names, and records all of them with their times.
    struct Scripted {
        ends_upon: Option<&'static str>,
        ended: CancellationToken,
        start: Instant,
        record: Mutex<Vec<(&'static str, Duration)>>,
    }

    impl Scripted {
        fn new(ends_upon: Option<&'static str>) -> Self {
            Self {
                ends_upon,
                ended: CancellationToken::new(),
                start: Instant::now(),
                record: Mutex::default(),
            }
        }

        fn note(&self, step: &'static str) {
            self.record.lock().unwrap().push((step, self.start.elapsed()));
            if self.ends_upon == Some(step) {
                self.ended.cancel();
            }
        }

        async fn run(self, asked: bool) -> (Vec<(&'static str, Duration)>, bool) {
            let stop = CancellationToken::new();
            if asked {
                stop.cancel();
            }
            let mut stopping = Stopping::new(GRACE);
            until_ended(&self, &mut stopping, &stop, "tag").await;
            (self.record.into_inner().unwrap(), stopping.asked())
        }
    }

    impl Stoppable for Scripted {
        fn ended(&self) -> impl Future<Output = ()> + Send {
            self.ended.cancelled()
        }

        fn close_stdin(&self) {
            self.note("close stdin");
        }

        fn terminate(&self) {
            self.note("terminate");
        }

        fn kill(&self) {
            self.note("kill");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_obeys_is_not_killed() {
        let (record, asked) = Scripted::new(Some("terminate")).run(true).await;
        assert_eq!(record, [("close stdin", Duration::ZERO), ("terminate", Duration::ZERO)]);
        assert!(asked);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_ignores_sigterm_is_killed_after_the_grace() {
        let (record, _) = Scripted::new(Some("kill")).run(true).await;
        assert_eq!(record.last(), Some(&("kill", GRACE)));
        assert_eq!(record.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_ends_by_itself_gets_no_step() {
        let process = Scripted::new(None);
        process.ended.cancel();
        assert_eq!(process.run(true).await, (vec![], false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_survives_sigkill_is_killed_again_until_it_goes() {
        let process = Scripted::new(None);
        let ended = process.ended.clone();
        let run = process.run(true);
        let free = async {
            tokio::time::sleep(GRACE + Duration::from_millis(2500)).await;
            ended.cancel();
        };
        let ((record, _), ()) = tokio::join!(run, free);
        assert_eq!(record.iter().filter(|(step, _)| *step == "kill").count(), 3);
    }
}
