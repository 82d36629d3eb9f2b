//! The owner of all children: starts them, counts them, stops them all.

use std::ffi::OsString;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::child::{Child, Life};
use crate::config::Config;
use crate::error::{SpawnError, StartError};
use crate::forker::Forker;
use crate::order::Order;
use crate::stderr::Redactor;
use crate::watch::Watch;

/// Starts children and owns the tasks that watch them. Dropping it stops them all, without waiting.
#[derive(Debug)]
pub struct Supervisor {
    forker: Forker,
    /// Variables that every child inherits; may contain secrets, hence never shown.
    inherited: Inherited,
    stop_grace: Duration,
    stderr_line_limit: usize,
    /// The parent of every child's stop token. Cancelled once, when nothing is started any more.
    stop: CancellationToken,
    /// One task per child.
    watches: TaskTracker,
}

/// Variables with their values, kept out of `Debug`.
struct Inherited(Vec<(OsString, OsString)>);

impl Supervisor {
    /// Makes a supervisor and starts its one thread. Needs no runtime yet.
    ///
    /// # Errors
    ///
    /// [`StartError::Config`] if the configuration makes no sense, [`StartError::Thread`] if the thread does
    /// not start.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a configuration is given away; what is not kept is not to linger"
    )]
    pub fn new(config: Config) -> Result<Self, StartError> {
        config.check()?;
        Ok(Self {
            forker: Forker::start().map_err(StartError::Thread)?,
            inherited: Inherited(config.inherited()),
            stop_grace: config.stop_grace,
            stderr_line_limit: config.stderr_line_limit,
            stop: CancellationToken::new(),
            watches: TaskTracker::new(),
        })
    }

    /// Starts a child. It is watched by a task on the current runtime, whose end also ends the child.
    ///
    /// Cancel safe: if the future is dropped, the child is not started or it is stopped.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NotFound`], [`SpawnError::NotExecutable`] and [`SpawnError::Invalid`] say that this order
    /// will never work, [`SpawnError::Exhausted`] that it may work later, [`SpawnError::Stopping`] that
    /// [`stop_all`](Self::stop_all) was called, [`SpawnError::Os`] anything else. A program that starts and
    /// then fails is no error here: the child is [`done`](Child::done) early.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn spawn(&self, order: Order) -> Result<Child, SpawnError> {
        let command = order.command(&self.inherited.0)?;
        let life = Life {
            stop: self.stop.child_token(),
            done: CancellationToken::new(),
            exit: Arc::new(OnceLock::new()),
        };
        let watch = Watch {
            forker: self.forker.clone(),
            redactor: Redactor::new(&order.secrets),
            tag: order.tag,
            stop_grace: self.stop_grace,
            stderr_line_limit: self.stderr_line_limit,
            life,
        };
        let (answer, child) = oneshot::channel();
        // Counted before the look at the token: `stop_all` cancels first and waits then, so either it waits for
        // this child or this child is refused.
        let counted = self.watches.token();
        if self.stop.is_cancelled() {
            return Err(SpawnError::Stopping);
        }
        self.watches.spawn(watch.run(command, answer));
        drop(counted);
        child.await.unwrap_or(Err(SpawnError::Stopping))
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

impl std::fmt::Debug for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
