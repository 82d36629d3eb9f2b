//! The task that owns one child from its start to its end.
//!
//! It is the only owner of the [`ChildProcess`], so every way out of it reaps: the regular one below, and the drop of
//! the child_process if the runtime drops the task. The order at the end is fixed, and the safety of the signals rests
//! on it (see [`child_process`](crate::child_process)): the first process has ended and is not reaped, SIGKILL to the group,
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

use crate::child::{Child, ChildState};
use crate::child_process::{ChildProcess, ExitWatcher};
use crate::error::SpawnError;
use crate::exit::Exit;
use crate::io::{ChildIo, OutputPipe, Stdin};
use crate::spawn_thread::{SandboxedProcess, SpawnThread, SpawnedProcess};
use crate::spec::ChildSpec;
use crate::stderr::{self, LogLimits, StderrTail};
use crate::stop_sequence::{StopAction, StopSequence};

/// How long to wait for processes that were killed. Only one that hangs in the kernel takes so long.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to go on killing as long as new ones turn up.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that the task needs to know.
pub(crate) struct ChildTask {
    pub(crate) spawn_thread: SpawnThread,
    pub(crate) tail: StderrTail,
    pub(crate) tag: Arc<str>,
    pub(crate) stop_grace: Duration,
    pub(crate) log_limits: LogLimits,
    pub(crate) state: ChildState,
}

/// A process as the policy of stop_sequence sees it. The tests script one.
trait Stoppable {
    /// Waits until it has ended and is to be reaped. Cancel safe.
    fn ended(&self) -> impl Future<Output = ()> + Send;
    fn close_stdin(&self);
    fn terminate(&self);
    fn kill(&self);
}

/// A process on its child_process.
struct ProcessHandle<'a> {
    child_process: &'a ChildProcess,
    exit_watcher: &'a ExitWatcher,
    stdin: &'a Stdin,
}

/// The process and its streams, ready for the runtime.
struct RunningProcess {
    held: SandboxedProcess,
    exit_watcher: ExitWatcher,
    stdin: Arc<Stdin>,
    stdout: OutputPipe,
    stderr: OutputPipe,
}

impl ChildTask {
    /// Starts the child, answers with its handle, and stays with it until it is gone.
    pub(crate) async fn run(self, spec: ChildSpec, answer: oneshot::Sender<Result<Child, SpawnError>>) {
        // However this ends, nobody waits for the child for ever.
        let _done = self.state.done.clone().drop_guard();
        let gone = CancellationToken::new();
        let started = self.spawn_thread.spawn(spec).await;
        let ready = started.and_then(|started| RunningProcess::new(started, &gone).map_err(SpawnError::from_system));
        let RunningProcess {
            held,
            exit_watcher,
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
        let pid = held.child_process.group().as_raw_nonzero();
        tracing::debug!(tag = &*self.tag, pid, "child started");

        let io = ChildIo::new(Arc::clone(&stdin), stdout);
        let child = Child::new(pid.get().unsigned_abs(), io, self.tail.clone(), self.state.clone());
        // If the caller no longer waits, the handle is dropped here, which asks for the stop.
        let _ = answer.send(Ok(child));

        let pump = stderr::pump(stderr, self.log_limits, &self.tag, &self.tail);
        let state = async {
            let mut sequence = StopSequence::new(self.stop_grace);
            let process = ProcessHandle {
                child_process: &held.child_process,
                exit_watcher: &exit_watcher,
                stdin: &stdin,
            };
            until_ended(&process, &mut sequence, &self.state.stop, &self.tag).await;
            let lived = since.elapsed();
            stdin.close();
            let reaped = self.spawn_thread.finish(held).await;
            if reaped.as_ref().is_some_and(|reaped| !reaped.clean) {
                self.until_nothing_is_left().await;
            }
            gone.cancel();
            let (status, sandbox) = reaped.map(|reaped| (reaped.status, reaped.sandbox)).unzip();
            (exit(status, lived, sequence.requested()), sandbox)
        };
        let ((exit, sandbox), ()) = tokio::join!(state, pump);
        if let Some(sandbox) = sandbox.filter(|sandbox| !sandbox.is_left_empty()) {
            // Removing what a child left may take any time.
            let span = Span::current();
            let _ = spawn_blocking(move || span.in_scope(|| drop(sandbox))).await;
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
        let _ = self.state.exit.set(exit);
    }

    /// Waits until nothing is left of what the child started, or until patience ends.
    async fn until_nothing_is_left(&self) {
        let end = Instant::now() + SWEEP_TIMEOUT;
        let mut deadline = Instant::now() + KILL_TIMEOUT;
        let mut pause = Duration::from_millis(1);
        let mut known = BTreeSet::new();
        loop {
            let left = self.spawn_thread.sweep().await;
            if left.is_empty() {
                return;
            }
            if !left.is_subset(&known) {
                deadline = end.min(Instant::now() + KILL_TIMEOUT);
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

impl RunningProcess {
    /// On failure the child is ended, by the drop of its child_process.
    fn new(started: SpawnedProcess, gone: &CancellationToken) -> io::Result<Self> {
        let SpawnedProcess { held, streams } = started;
        let stdout = pipe::Receiver::from_owned_fd(streams.stdout.into())?;
        let stderr = pipe::Receiver::from_owned_fd(streams.stderr.into())?;
        Ok(Self {
            exit_watcher: held.child_process.exit_watcher()?,
            stdin: Arc::new(Stdin::new(pipe::Sender::from_owned_fd(streams.stdin.into())?)),
            stdout: OutputPipe::new(stdout, gone.clone()),
            stderr: OutputPipe::new(stderr, gone.clone()),
            held,
        })
    }
}

impl Stoppable for ProcessHandle<'_> {
    fn ended(&self) -> impl Future<Output = ()> + Send {
        self.exit_watcher.wait()
    }

    fn close_stdin(&self) {
        self.stdin.close();
    }

    fn terminate(&self) {
        self.child_process.terminate();
    }

    fn kill(&self) {
        self.child_process.kill();
    }
}

/// Waits until the process has ended, and takes the steps of stop_sequence it once that is asked for.
async fn until_ended(process: &impl Stoppable, sequence: &mut StopSequence, stop: &CancellationToken, tag: &str) {
    loop {
        while let Some(step) = sequence.next_action(Instant::now()) {
            match step {
                StopAction::CloseStdin => process.close_stdin(),
                StopAction::Terminate => process.terminate(),
                StopAction::Kill => {
                    tracing::info!(tag, "the child did not end in time and is killed");
                    process.kill();
                }
                StopAction::KillAgain => {
                    tracing::warn!(tag, "the child was killed and does not end");
                    process.kill();
                }
            }
        }
        let next_deadline = sequence.next_deadline();
        tokio::select! {
            biased;
            () = process.ended() => return,
            () = stop.cancelled(), if !sequence.requested() => sequence.request(),
            () = sleep_until(next_deadline.unwrap_or_else(Instant::now)), if next_deadline.is_some() => {}
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
            let mut sequence = StopSequence::new(GRACE);
            until_ended(&self, &mut sequence, &stop, "tag").await;
            (self.record.into_inner().unwrap(), sequence.requested())
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
