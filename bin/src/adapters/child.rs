//! `session`'s backends as children of `supervisor`, each behind a `bridge`.
//!
//! A child whose output has ended is useless, even if it lives: it is stopped. The output of a
//! child that exits ends, and the bridge answers the requests in flight. Either end stops the
//! other, and the backend is done when the child is gone.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use ::bridge::{Bridge, ConnectError};
use bytes::Bytes;
use http::Request;
use secrecy::SecretString;
use session::ports::{Backend, BoxFuture, Reply, Snapshot, SpawnError, SpawnOrder, Spawner};
use supervisor::{Child, ChildSpec, ReadyError, Supervisor};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{bridge, credentials};
use crate::template;

/// The program that is started for each session.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) command: OsString,
    /// With placeholders.
    pub(crate) args: Vec<String>,
    /// With placeholders.
    pub(crate) env: Vec<(String, SecretString)>,
    pub(crate) forgejo_url: String,
}

/// Starts a child for each session.
#[derive(Debug)]
pub(crate) struct ChildSpawner {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) program: Program,
    pub(crate) bridge: ::bridge::Config,
    /// One task for each backend: [`stop_with_output`].
    pub(crate) tasks: TaskTracker,
}

/// A child and the bridge over its streams.
#[derive(Debug)]
struct ChildBackend {
    child: Child,
    bridge: Bridge,
    tag: Arc<str>,
    expires_at: SystemTime,
    /// Set by a stop that comes before the end of the child and before the end of its output,
    /// which are noticed in either order.
    stop_requested: AtomicBool,
}

impl ChildSpawner {
    async fn start(&self, order: SpawnOrder) -> Result<Arc<dyn Backend>, SpawnError> {
        let credential = order
            .caller
            .credentials
            .current()
            .await
            .map_err(credentials::spawn_error)?;
        let snapshot = bridge::decode(order.snapshot)?;

        let spec = self.program.child_spec(&credential.access_token, &order.tag);
        let child = self.supervisor.spawn(spec).await.map_err(not_started)?;
        let io = child.take_io();
        let io = io.ok_or_else(|| SpawnError::Failed("the streams of the child are taken already".into()))?;
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
            let value = template::variable(template, &self.forgejo_url, access_token);
            (name.clone(), value)
        };
        ChildSpec {
            program: self.command.clone(),
            args: self.args.iter().map(argument).collect(),
            env: self.env.iter().map(variable).collect(),
            secrets: vec![access_token.clone()],
            tag: Arc::clone(tag),
        }
    }
}

impl Backend for ChildBackend {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Reply> {
        Box::pin(bridge::serve(&self.bridge, request))
    }

    fn done(&self) -> CancellationToken {
        self.child.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.bridge.done().is_cancelled() && self.child.exit().is_none() {
                self.stop_requested.store(true, Relaxed);
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
    if backend.stop_requested.load(Relaxed) {
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
    let kind = if ended {
        SpawnError::Failed
    } else {
        SpawnError::NotReady
    };
    kind(error.into())
}

fn not_started(error: supervisor::SpawnError) -> SpawnError {
    use supervisor::SpawnError::{Exhausted, Stopping, TooSlow};
    let transient = matches!(error, Exhausted(_) | TooSlow(_) | Stopping);
    let kind = if transient {
        SpawnError::Unavailable
    } else {
        SpawnError::Failed
    };
    kind(error.into())
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

    #[tokio::test]
    async fn child_that_exits_before_a_stop_has_ended_by_itself() {
        let supervisor = Supervisor::new(supervisor::Config::new([])).unwrap();
        let program = Program {
            command: "/bin/true".into(),
            args: vec![],
            env: vec![],
            forgejo_url: String::new(),
        };
        let child = supervisor.spawn(program.child_spec(&"".into(), &"tag".into())).await;
        let child = child.unwrap();
        child.done().cancelled().await;
        // The bridge notices an end only later: its stream is still open.
        let (near, _far) = tokio::io::duplex(64);
        let bridge = Bridge::connect(near, ::bridge::Config::default(), None).await.unwrap();
        let backend = ChildBackend {
            child,
            bridge,
            tag: "tag".into(),
            expires_at: SystemTime::UNIX_EPOCH,
            stop_requested: AtomicBool::new(false),
        };
        backend.stop().await;
        assert!(!backend.stop_requested.load(Relaxed));
    }
}
