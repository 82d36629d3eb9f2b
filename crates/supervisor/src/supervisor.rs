//! The owner of all children: spawns, counts and stops them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::child::{Child, ChildState};
use crate::child_task::ChildTask;
use crate::config::{self, Config};
use crate::error::{InvalidConfigError, SpawnError, SupervisorError};
use crate::isolation::{IsolationReport, Layer};
use crate::launch::Launcher;
use crate::orphans;
use crate::spawn_thread::SpawnThread;
use crate::spec::ChildSpec;
use crate::stderr::{LogLimits, Redactor, StderrTail};

/// Spawns children and owns the tasks that watch them. Dropping it stops all children, without
/// waiting.
#[derive(Debug)]
pub struct Supervisor {
    spawn_thread: SpawnThread,
    report: IsolationReport,
    start_timeout: Duration,
    stop_grace: Duration,
    log_limits: LogLimits,
    /// The parent of every child's stop token. Cancelled once the supervisor stops.
    stop: CancellationToken,
    /// One task per child.
    tasks: TaskTracker,
}

impl Supervisor {
    /// Probes and logs the isolation layers of the machine, starts the thread that spawns children,
    /// and makes this process a child subreaper. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`SupervisorError::Config`] if the configuration is invalid, [`SupervisorError::Isolation`]
    /// if a required layer is not available, [`SupervisorError::Probe`] and
    /// [`SupervisorError::Thread`] if the system refuses the probe or a thread.
    pub fn new(config: Config) -> Result<Self, SupervisorError> {
        config.check()?;
        let plan = config.plan().map_err(SupervisorError::Probe)?;
        let report = plan.report.clone();
        report.log();
        if config.isolation.required && !report.missing.is_empty() {
            return Err(SupervisorError::Isolation(report.missing));
        }
        if config.delivers_files() && !report.has(Layer::Directory) {
            return Err(InvalidConfigError(vec![config::FILES_NEED_DIRECTORY]).into());
        }
        orphans::become_subreaper().map_err(SupervisorError::Probe)?;
        let launcher = Launcher {
            plan,
            inherited: config.inherited(),
            delivery: config.delivery,
        };
        Ok(Self {
            spawn_thread: SpawnThread::start(launcher).map_err(SupervisorError::Thread)?,
            report,
            start_timeout: config.start_timeout,
            stop_grace: config.stop_grace,
            log_limits: LogLimits {
                line: config.stderr_line_limit,
                lines_per_second: config.stderr_lines_per_second,
            },
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// The isolation layers of its children.
    pub fn isolation(&self) -> &IsolationReport {
        &self.report
    }

    /// Spawns a child. A task on the current runtime watches it; the end of that task also ends the
    /// child. The task logs, the child's standard error included, in the current span.
    ///
    /// Cancel safe: if the future is dropped, the child is not spawned or it is stopped.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NotFound`], [`SpawnError::NotExecutable`] and [`SpawnError::Invalid`] if this
    /// spec can never work, [`SpawnError::Exhausted`] and [`SpawnError::TooSlow`] if it may work
    /// later, [`SpawnError::Stopping`] after [`stop_all`](Self::stop_all),
    /// [`SpawnError::Isolation`] if the child could not be isolated and so did not run,
    /// [`SpawnError::Os`] otherwise. A program that starts and then fails is no error here: the
    /// child is [`done`](Child::done) early; see [`Child::ready`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn spawn(&self, spec: ChildSpec) -> Result<Child, SpawnError> {
        let state = ChildState {
            stop: self.stop.child_token(),
            done: CancellationToken::new(),
            exit: Arc::new(OnceLock::new()),
            spawned_at: Instant::now(),
            start_timeout: self.start_timeout,
        };
        let deadline = state.spawned_at + self.start_timeout;
        let task = ChildTask {
            spawn_thread: self.spawn_thread.clone(),
            tail: StderrTail::new(Redactor::new(&spec.secrets)),
            tag: Arc::clone(&spec.tag),
            stop_grace: self.stop_grace,
            log_limits: self.log_limits,
            state,
        };
        let (reply, child) = oneshot::channel();
        // Take the token before checking `stop`: `stop_all` cancels first and waits then, so either
        // it waits for this child or this spawn fails.
        let counted = self.tasks.token();
        if self.stop.is_cancelled() {
            return Err(SpawnError::Stopping);
        }
        self.tasks.spawn(task.run(spec, reply).in_current_span());
        drop(counted);
        match timeout_at(deadline, child).await {
            Ok(reply) => reply.unwrap_or(Err(SpawnError::Stopping)),
            // If the child starts after all, its handle is dropped, which ends it.
            Err(_) => Err(SpawnError::TooSlow(self.start_timeout)),
        }
    }

    /// Looks up the file that a child of this spec would execute, without starting one. Exec can
    /// still refuse it, for example because its interpreter is missing.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NotFound`] and [`SpawnError::NotExecutable`] as [`spawn`](Self::spawn) would
    /// return them, [`SpawnError::Os`] if the lookup fails.
    pub async fn find_program(&self, spec: ChildSpec) -> Result<PathBuf, SpawnError> {
        self.spawn_thread.find_program(spec).await
    }

    /// Stops every child and returns when all are gone. No child can be spawned afterwards.
    ///
    /// Idempotent and cancel safe, like [`Child::stop`]; all grace periods run concurrently.
    pub async fn stop_all(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The number of children, including those that are starting or stopping.
    pub fn live(&self) -> usize {
        self.tasks.len()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
