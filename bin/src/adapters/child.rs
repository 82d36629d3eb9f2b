//! `session`'s backends as children of `supervisor`, each behind a `bridge`.
//!
//! A child whose output has ended is useless, even if it lives: it is stopped. The output of a
//! child that exits ends, and the bridge answers the requests in flight. Either end stops the
//! other, and the backend is done when the child is gone.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use ::bridge::{Bridge, ConnectError};
use bytes::Bytes;
use http::{Request, Response};
use secrecy::SecretString;
use session::ports::{Backend, Body, BoxError, BoxFuture, Snapshot, SpawnError, SpawnOrder, Spawner};
use supervisor::{Child, ChildSpec, ReadyError, Supervisor};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{bridge, credentials};
use crate::template;

/// The program that is started for each session.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub command: OsString,
    /// Its arguments, with placeholders.
    pub args: Vec<String>,
    /// Its own variables, with placeholders.
    pub env: Vec<(String, SecretString)>,
    /// The value of `{forgejo_url}`.
    pub forgejo_url: String,
}

/// Starts a child for each session.
#[derive(Debug)]
pub struct ChildSpawner {
    supervisor: Arc<Supervisor>,
    program: Program,
    bridge: ::bridge::Config,
    /// One task for each backend: [`stop_with_output`].
    tasks: TaskTracker,
}

/// A child and the bridge over its streams.
#[derive(Debug)]
struct ChildBackend {
    child: Child,
    bridge: Bridge,
    tag: Arc<str>,
    /// The expiry of the child's token.
    expires_at: SystemTime,
    /// Set by a stop before the end of the output. The supervisor cannot know: it notices an end
    /// later than the bridge, and a stop may come in between.
    stop_requested: AtomicBool,
}

/// The streams of a child can be taken once.
#[derive(Debug, thiserror::Error)]
#[error("the streams of the child are taken already")]
struct NoStreams;

impl ChildSpawner {
    /// Children of this supervisor.
    #[must_use]
    pub fn new(supervisor: Arc<Supervisor>, program: Program, bridge: ::bridge::Config) -> Self {
        Self {
            supervisor,
            program,
            bridge,
            tasks: TaskTracker::new(),
        }
    }

    /// Waits until the end of the last child is logged. Call it when no backend is spawned any
    /// more.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn start(&self, order: SpawnOrder) -> Result<Arc<dyn Backend>, SpawnError> {
        let credential = order
            .caller
            .credentials
            .current()
            .await
            .map_err(credentials::spawn_error)?;
        let snapshot = bridge::decode(order.snapshot)?;

        let child = self
            .supervisor
            .spawn(self.program.child_spec(&credential.access_token, &order.tag));
        let child = child.await.map_err(not_started)?;
        let io = child.take_io().ok_or_else(|| SpawnError::Failed(NoStreams.into()))?;
        // Without a snapshot there is nothing to wait for: the client's own `initialize` is the
        // handshake.
        let bridge = child.ready(Bridge::connect(io, self.bridge.clone(), snapshot.as_ref()));
        let bridge = bridge.await.map_err(not_ready)?;

        let backend = Arc::new(ChildBackend {
            child,
            bridge,
            tag: order.tag,
            expires_at: credential.expires_at,
            stop_requested: AtomicBool::new(false),
        });
        // The log line about the child's end belongs to the session.
        self.tasks
            .spawn(stop_with_output(Arc::clone(&backend)).in_current_span());
        Ok(backend)
    }
}

impl Spawner for ChildSpawner {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(self.start(order))
    }
}

impl Program {
    fn child_spec(&self, access_token: &SecretString, tag: &Arc<str>) -> ChildSpec {
        let argument = |template: &String| template::argument(template, &self.forgejo_url).into();
        let variable = |(name, template): &(String, SecretString)| {
            (
                name.clone(),
                template::variable(template, &self.forgejo_url, access_token),
            )
        };
        let env: Vec<(String, SecretString)> = self.env.iter().map(variable).collect();
        ChildSpec {
            program: self.command.clone(),
            args: self.args.iter().map(argument).collect(),
            secrets: vec![access_token.clone()],
            env,
            tag: Arc::clone(tag),
        }
    }
}

impl Backend for ChildBackend {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(bridge::serve(&self.bridge, request))
    }

    fn done(&self) -> CancellationToken {
        self.child.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.bridge.done().is_cancelled() {
                self.stop_requested.store(true, Ordering::Relaxed);
            }
            // Concurrently: the child stops even if the bridge takes long.
            tokio::join!(self.bridge.close(), self.child.stop());
        })
    }

    fn is_gone(&self) -> bool {
        // The output ends before the child.
        self.bridge.done().is_cancelled()
    }

    fn expires_at(&self) -> Option<SystemTime> {
        Some(self.expires_at)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        bridge::snapshot(&self.bridge)
    }
}

/// Stops the child at the end of its output.
async fn stop_with_output(backend: Arc<ChildBackend>) {
    backend.bridge.done().cancelled().await;
    backend.child.stop().await;
    let session = &backend.tag;
    let exit = backend.child.exit();
    let exit = exit.map_or_else(|| "ended with unknown status".to_owned(), |exit| exit.to_string());
    if backend.stop_requested.load(Ordering::Relaxed) {
        tracing::debug!(%session, exit, "the child has ended");
    } else {
        let said = backend.child.last_stderr().join("\n");
        tracing::warn!(%session, exit, said, "the child ended by itself");
    }
}

/// Only a child that has exited, or is about to, may have refused its token.
fn not_ready(error: ReadyError<ConnectError>) -> SpawnError {
    let ended = matches!(
        error,
        ReadyError::Exited { .. } | ReadyError::Failed(ConnectError::Ended)
    );
    let error: BoxError = error.into();
    if ended {
        SpawnError::Failed(error)
    } else {
        SpawnError::NotReady(error)
    }
}

fn not_started(error: supervisor::SpawnError) -> SpawnError {
    let transient = matches!(
        error,
        supervisor::SpawnError::Exhausted(_) | supervisor::SpawnError::TooSlow(_) | supervisor::SpawnError::Stopping
    );
    let error: BoxError = error.into();
    if transient {
        SpawnError::Unavailable(error)
    } else {
        SpawnError::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_child_that_exited_may_have_refused_its_token() {
        let limit = std::time::Duration::from_secs(1);
        let failed = |error| not_ready(ReadyError::Failed(error));
        assert!(matches!(failed(ConnectError::Ended), SpawnError::Failed(_)));
        let missing = ConnectError::CapabilityMissing {
            capability: "tools".into(),
        };
        for error in [ConnectError::TimedOut, ConnectError::Unusable, missing] {
            assert!(matches!(failed(error), SpawnError::NotReady(_)));
        }
        let slow = ReadyError::TooSlow { limit, stderr: vec![] };
        assert!(matches!(not_ready(slow), SpawnError::NotReady(_)));
    }
}
