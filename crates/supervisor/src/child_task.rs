//! The task that owns one child from its start to its end.
//!
//! It is the only owner of the [`ChildProcess`](crate::child_process::ChildProcess), so every way
//! out of it reaps: the regular one below, and the drop of the process if the runtime drops the
//! task. The order at the end is fixed, since the safety of the signals depends on it (see
//! [`child_process`](crate::child_process)): the process has ended and is not reaped, SIGKILL to
//! the group, reap, sweep the orphans, read the rest of standard error, remove the directory,
//! publish the exit, fire `done`.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::child::{Child, ChildState};
use crate::child_process::ExitWatcher;
use crate::error::SpawnError;
use crate::exit::Exit;
use crate::io::{ChildIo, OutputPipe, Stdin};
use crate::spawn_thread::{SandboxedProcess, SpawnThread, SpawnedProcess};
use crate::spec::ChildSpec;
use crate::stderr::{self, LogLimits, StderrTail};
use crate::stop_sequence::{StopAction, StopSequence};

/// Maximum time to wait for killed processes. Only one that hangs in the kernel takes so long.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time to keep killing while new orphans appear.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters of the task.
pub(crate) struct ChildTask {
    pub(crate) spawn_thread: SpawnThread,
    pub(crate) tail: StderrTail,
    pub(crate) tag: Arc<str>,
    pub(crate) stop_grace: Duration,
    pub(crate) log_limits: LogLimits,
    pub(crate) state: ChildState,
}

/// The process and its streams, registered with the runtime.
struct RunningProcess {
    sandboxed: SandboxedProcess,
    exit_watcher: ExitWatcher,
    stdin: Arc<Stdin>,
}

impl ChildTask {
    /// Spawns the child, replies with its handle, and runs until nothing is left of it.
    pub(crate) async fn run(self, spec: ChildSpec, reply: oneshot::Sender<Result<Child, SpawnError>>) {
        // Fires however this ends, so that no caller waits for the child forever.
        let _done = self.state.done.clone().drop_guard();
        let gone = CancellationToken::new();
        let spawned = self.spawn_thread.spawn(spec).await;
        let running = spawned.and_then(|spawned| register(spawned, &gone).map_err(SpawnError::from_system));
        let (running, stdout, stderr) = match running {
            Ok(running) => running,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let started = Instant::now();
        let pid = running.sandboxed.process.group().as_raw_nonzero();
        tracing::debug!(tag = &*self.tag, pid, "child started");

        let io = ChildIo::new(Arc::clone(&running.stdin), stdout);
        let child = Child::new(pid.get().unsigned_abs(), io, self.tail.clone(), self.state.clone());
        // If the caller no longer waits, this drops the handle, which requests the stop.
        let _ = reply.send(Ok(child));

        let pump = stderr::pump(stderr, self.log_limits, &self.tag, &self.tail);
        let run = async {
            let mut sequence = StopSequence::new(self.stop_grace);
            run_until_exit(
                || running.exit_watcher.wait(),
                |action| running.perform(action, &self.tag),
                &mut sequence,
                &self.state.stop,
            )
            .await;
            let lived = started.elapsed();
            running.stdin.close();
            let reaped = self.spawn_thread.finish(running.sandboxed).await;
            if reaped.as_ref().is_some_and(|reaped| reaped.left_orphans) {
                self.sweep_orphans().await;
            }
            gone.cancel();
            let (status, sandbox) = reaped.map(|reaped| (reaped.status, reaped.sandbox)).unzip();
            let status = status.and_then(Result::ok);
            (Exit::new(status, lived, sequence.requested()), sandbox)
        };
        let ((exit, sandbox), ()) = tokio::join!(run, pump);
        if let Some(sandbox) = sandbox.filter(|sandbox| !sandbox.remove_if_empty()) {
            // Removing the files of the child may take any time.
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

    /// Sweeps until no orphan is left or the time is up.
    async fn sweep_orphans(&self) {
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
                    "orphaned processes of children were killed but have not exited"
                );
                return;
            }
            known = left;
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Registers the process and its streams with the runtime. On failure the drop of the process ends
/// the child.
fn register(spawned: SpawnedProcess, gone: &CancellationToken) -> io::Result<(RunningProcess, OutputPipe, OutputPipe)> {
    let SpawnedProcess { sandboxed, streams } = spawned;
    let stdout = pipe::Receiver::from_owned_fd(streams.stdout.into())?;
    let stderr = pipe::Receiver::from_owned_fd(streams.stderr.into())?;
    let running = RunningProcess {
        exit_watcher: sandboxed.process.exit_watcher()?,
        stdin: Arc::new(Stdin::new(pipe::Sender::from_owned_fd(streams.stdin.into())?)),
        sandboxed,
    };
    let output = |pipe| OutputPipe::new(pipe, gone.clone());
    Ok((running, output(stdout), output(stderr)))
}

impl RunningProcess {
    fn perform(&self, action: StopAction, tag: &str) {
        let process = &self.sandboxed.process;
        match action {
            StopAction::CloseStdin => self.stdin.close(),
            StopAction::Terminate => process.terminate(),
            StopAction::Kill => {
                tracing::info!(tag, "child did not exit within the stop grace period; killing it");
                process.kill();
            }
            StopAction::KillAgain => {
                tracing::warn!(tag, "child was killed but has not exited; killing it again");
                process.kill();
            }
        }
    }
}

/// Waits until `ended` returns, which must be cancel safe. Performs the actions of `sequence` once
/// `stop` fires.
async fn run_until_exit<F: Future<Output = ()>>(
    ended: impl Fn() -> F,
    perform: impl Fn(StopAction),
    sequence: &mut StopSequence,
    stop: &CancellationToken,
) {
    loop {
        while let Some(action) = sequence.next_action(Instant::now()) {
            perform(action);
        }
        let deadline = sequence.next_deadline();
        tokio::select! {
            biased;
            () = ended() => return,
            () = stop.cancelled(), if !sequence.requested() => sequence.request(),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    /// A process that ends upon `ends_upon` and records every action with its time.
    struct Scripted {
        ends_upon: Option<&'static str>,
        ended: CancellationToken,
        start: Instant,
        actions: Mutex<Vec<(&'static str, Duration)>>,
    }

    impl Scripted {
        fn new(ends_upon: Option<&'static str>) -> Self {
            Self {
                ends_upon,
                ended: CancellationToken::new(),
                start: Instant::now(),
                actions: Mutex::default(),
            }
        }

        fn perform(&self, action: StopAction) {
            let name = match action {
                StopAction::CloseStdin => "close stdin",
                StopAction::Terminate => "terminate",
                StopAction::Kill | StopAction::KillAgain => "kill",
            };
            self.actions.lock().unwrap().push((name, self.start.elapsed()));
            if self.ends_upon == Some(name) {
                self.ended.cancel();
            }
        }

        async fn run(self, requested: bool) -> (Vec<(&'static str, Duration)>, bool) {
            let stop = CancellationToken::new();
            if requested {
                stop.cancel();
            }
            let mut sequence = StopSequence::new(GRACE);
            let ended = || self.ended.cancelled();
            run_until_exit(ended, |action| self.perform(action), &mut sequence, &stop).await;
            (self.actions.into_inner().unwrap(), sequence.requested())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn child_that_obeys_sigterm_is_not_killed() {
        let (actions, requested) = Scripted::new(Some("terminate")).run(true).await;
        assert_eq!(
            actions,
            [("close stdin", Duration::ZERO), ("terminate", Duration::ZERO)]
        );
        assert!(requested);
    }

    #[tokio::test(start_paused = true)]
    async fn child_that_ignores_sigterm_is_killed_after_the_grace() {
        let (actions, _) = Scripted::new(Some("kill")).run(true).await;
        assert_eq!(actions.last(), Some(&("kill", GRACE)));
        assert_eq!(actions.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn child_that_exits_by_itself_gets_no_action() {
        let process = Scripted::new(None);
        process.ended.cancel();
        assert_eq!(process.run(true).await, (vec![], false));
    }

    #[tokio::test(start_paused = true)]
    async fn child_that_survives_sigkill_is_killed_again_until_it_exits() {
        let process = Scripted::new(None);
        let ended = process.ended.clone();
        let run = process.run(true);
        let exit_later = async {
            tokio::time::sleep(GRACE + Duration::from_millis(2500)).await;
            ended.cancel();
        };
        let ((actions, _), ()) = tokio::join!(run, exit_later);
        assert_eq!(actions.iter().filter(|(action, _)| *action == "kill").count(), 3);
    }
}
