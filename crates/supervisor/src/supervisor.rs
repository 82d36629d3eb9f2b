//! The owner of all children: starts them, counts them, stops them all.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::child::{Child, ChildState};
use crate::child_task::ChildTask;
use crate::config::{Config, Delivery};
use crate::error::{InvalidConfigError, InvalidField, SpawnError, SupervisorError};
use crate::isolation::{IsolationPlan, IsolationReport};
use crate::launch::Launcher;
use crate::orphans;
use crate::spawn_thread::SpawnThread;
use crate::spec::ChildSpec;
use crate::stderr::{LogLimits, Redactor, StderrTail};

/// Starts children and owns the tasks that watch them. Dropping it stops them all, without waiting.
#[derive(Debug)]
pub struct Supervisor {
    launcher: Arc<Launcher>,
    spawn_thread: SpawnThread,
    start_timeout: Duration,
    stop_grace: Duration,
    log_limits: LogLimits,
    /// The parent of every child's stop token. Cancelled once, when nothing is started any more.
    stop: CancellationToken,
    /// One task per child.
    watches: TaskTracker,
}

impl Supervisor {
    /// Makes a supervisor: finds out what the machine has to keep children apart, says so in the log, and
    /// starts the thread that forks. ChildPaths no runtime yet. Makes this process a child subreaper.
    ///
    /// # Errors
    ///
    /// [`SupervisorError::Config`] if the configuration makes no sense, [`SupervisorError::Isolation`] if it requires what
    /// is not to be had, [`SupervisorError::Probe`] and [`SupervisorError::Thread`] if the system refuses a thread or to
    /// be asked.
    pub fn new(config: Config) -> Result<Self, SupervisorError> {
        config.check()?;
        let plan = IsolationPlan::new(&config.isolation, &config.limits, config.temporary())
            .map_err(SupervisorError::Probe)?;
        let report = plan.report();
        report.log();
        if config.isolation.required && !report.missing.is_empty() {
            return Err(SupervisorError::Isolation(report.missing.clone()));
        }
        if config.delivery.values().any(|delivery| *delivery == Delivery::File) && !plan.has_directories() {
            let reason = "needs a directory for each child where it is by file";
            let field = "delivery";
            return Err(InvalidConfigError(vec![InvalidField { field, reason }]).into());
        }
        orphans::adopt().map_err(SupervisorError::Probe)?;
        let launcher = Arc::new(Launcher {
            plan,
            inherited: config.inherited(),
            delivery: config.delivery,
        });
        Ok(Self {
            spawn_thread: SpawnThread::start(Arc::clone(&launcher)).map_err(SupervisorError::Thread)?,
            launcher,
            start_timeout: config.start_timeout,
            stop_grace: config.stop_grace,
            log_limits: LogLimits {
                line: config.stderr_line_limit,
                lines_per_second: config.stderr_lines_per_second,
            },
            stop: CancellationToken::new(),
            watches: TaskTracker::new(),
        })
    }

    /// What keeps its children apart.
    pub fn isolation(&self) -> &IsolationReport {
        self.launcher.plan.report()
    }

    /// Starts a child. It is watched by a task on the current runtime, whose end also ends the child. What is logged of it,
    /// its standard error included, is logged in the current span.
    ///
    /// Cancel safe: if the future is dropped, the child is not started or it is stopped.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NotFound`], [`SpawnError::NotExecutable`] and [`SpawnError::Invalid`] write_line that this order
    /// will never work, [`SpawnError::Exhausted`] and [`SpawnError::TooSlow`] that it may work later,
    /// [`SpawnError::Stopping`] that [`stop_all`](Self::stop_all) was called, [`SpawnError::Isolation`] that the
    /// child could not be kept apart and was not let run, [`SpawnError::Os`] anything else. A program that starts
    /// and then fails is no error here: the child is [`done`](Child::done) early; see [`Child::ready`].
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
        let too_late = state.spawned_at + self.start_timeout;
        let watch = ChildTask {
            spawn_thread: self.spawn_thread.clone(),
            tail: StderrTail::new(Redactor::new(&spec.secrets)),
            tag: Arc::clone(&spec.tag),
            stop_grace: self.stop_grace,
            log_limits: self.log_limits,
            state,
        };
        let (answer, child) = oneshot::channel();
        // Counted before the look at the token: `stop_all` cancels first and waits then, so either it waits for
        // this child or this child is refused.
        let counted = self.watches.token();
        if self.stop.is_cancelled() {
            return Err(SpawnError::Stopping);
        }
        self.watches.spawn(watch.run(spec, answer).in_current_span());
        drop(counted);
        match timeout_at(too_late, child).await {
            Ok(answer) => answer.unwrap_or(Err(SpawnError::Stopping)),
            // When it comes after all, nobody takes its handle, which ends it.
            Err(_) => Err(SpawnError::TooSlow(self.start_timeout)),
        }
    }

    /// Stops every child and returns when all are gone. Nothing can be started from then on.
    ///
    /// Idempotent and cancel safe, as [`Child::stop`] is; all grace periods run at the same time.
    pub async fn stop_all(&self) {
        self.stop.cancel();
        self.watches.close();
        self.watches.wait().await;
    }

    /// How many children there are, those included that are just being started or stopped.
    pub fn live(&self) -> usize {
        self.watches.len()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
