//! `session`'s backends are children of `supervisor`, spoken to through `bridge`.
//!
//! A child whose output has ended is of no use any more, even if it lives: it is stopped. A child that is gone has ended its
//! output: the bridge answers whatever waits. So either end takes the other with it, and the backend is done when the
//! child is gone.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use bridge::{Bridge, ConnectError, ServerEnded};
use bytes::Bytes;
use http::{Request, Response};
use secrecy::SecretString;
use session::ports::{
    Backend, BackendGone, Body, BoxError, BoxFuture, CredentialError, NotProcessed, Snapshot, SpawnError, SpawnOrder,
    Spawner,
};
use supervisor::{Child, ChildSpec, ReadyError, Supervisor};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::template;

/// What is started for each session.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub command: OsString,
    /// Its arguments, with placeholders.
    pub args: Vec<String>,
    /// Its own variables, with placeholders.
    pub env: Vec<(String, SecretString)>,
    /// What `{forgejo_url}` stands for.
    pub forgejo_url: String,
}

/// Starts a child for each session.
#[derive(Debug)]
pub struct ChildSpawner {
    supervisor: Arc<Supervisor>,
    program: Program,
    bridge: bridge::Config,
    /// One task for each backend: see [`ChildBackend`].
    ties: TaskTracker,
}

/// A child and the bridge over its streams.
#[derive(Debug)]
struct ChildBackend {
    child: Child,
    bridge: Bridge,
    tag: Arc<str>,
    /// When the token that the child was given expires.
    expires_at: SystemTime,
    /// Whether it was stopped while its output had not ended. The supervisor cannot tell: it learns of an end later than the
    /// bridge, and may have been asked for a stop meanwhile.
    told_to_end: AtomicBool,
}

/// A child has its streams when it starts; whoever gets this asked twice.
#[derive(Debug, thiserror::Error)]
#[error("the streams of the child were taken before")]
struct NoStreams;

impl ChildSpawner {
    /// Children of this supervisor.
    #[must_use]
    pub fn new(supervisor: Arc<Supervisor>, program: Program, bridge: bridge::Config) -> Self {
        Self {
            supervisor,
            program,
            bridge,
            ties: TaskTracker::new(),
        }
    }

    /// Waits until the last child has been told of and logged. To be called once nothing is spawned any more.
    pub async fn drained(&self) {
        self.ties.close();
        self.ties.wait().await;
    }

    async fn start(&self, order: SpawnOrder) -> Result<Arc<dyn Backend>, SpawnError> {
        let credential = order.caller.credentials.current().await.map_err(no_credential)?;
        let snapshot = order.snapshot.map(|snapshot| bridge::Snapshot::from_bytes(&snapshot.0));
        let snapshot = snapshot.transpose().map_err(|error| SpawnError::Failed(error.into()))?;

        let child = self
            .supervisor
            .spawn(self.program.child_spec(&credential.access_token, &order.tag));
        let child = child.await.map_err(not_started)?;
        let io = child.take_io().ok_or_else(|| SpawnError::Failed(NoStreams.into()))?;
        // Without a snapshot there is nothing to wait for: the client's own `initialize` is the handshake.
        let bridge = child.ready(Bridge::connect(io, self.bridge.clone(), snapshot.as_ref()));
        let bridge = bridge.await.map_err(not_ready)?;

        let backend = Arc::new(ChildBackend {
            child,
            bridge,
            tag: order.tag,
            expires_at: credential.expires_at,
            told_to_end: AtomicBool::new(false),
        });
        // What is told of the child's end belongs to the session.
        self.ties.spawn(tie(Arc::clone(&backend)).in_current_span());
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
        Box::pin(async {
            let mut response = self.bridge.serve(request).await;
            if response.extensions().get::<ServerEnded>().is_some() {
                response.extensions_mut().insert(BackendGone);
            }
            if response.extensions().get::<bridge::NotProcessed>().is_some() {
                response.extensions_mut().insert(NotProcessed);
            }
            response
        })
    }

    fn done(&self) -> CancellationToken {
        self.child.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.bridge.done().is_cancelled() {
                self.told_to_end.store(true, Ordering::Relaxed);
            }
            // Both at once: the stop is asked for even if the bridge should take its time.
            tokio::join!(self.bridge.close(), self.child.stop());
        })
    }

    fn is_gone(&self) -> bool {
        // The end of its output comes before the end of the child.
        self.bridge.done().is_cancelled()
    }

    fn expires_at(&self) -> Option<SystemTime> {
        Some(self.expires_at)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.bridge.snapshot().map(|snapshot| Snapshot(snapshot.to_bytes()))
    }
}

/// Waits for the end of the child's output and sees to it that the child ends too.
async fn tie(backend: Arc<ChildBackend>) {
    backend.bridge.done().cancelled().await;
    backend.child.stop().await;
    let session = &backend.tag;
    let exit = backend.child.exit();
    let exit = exit.map_or_else(|| "ended with unknown status".to_owned(), |exit| exit.to_string());
    if backend.told_to_end.load(Ordering::Relaxed) {
        tracing::debug!(%session, exit, "the child has ended");
    } else {
        let said = backend.child.last_stderr().join("\n");
        tracing::warn!(%session, exit, said, "the child ended by itself");
    }
}

pub(super) fn no_credential(error: CredentialError) -> SpawnError {
    let terminal = matches!(error, CredentialError::Terminal(_));
    let error: BoxError = error.into();
    if terminal {
        SpawnError::Credentials(error)
    } else {
        SpawnError::Unavailable(error)
    }
}

/// Only a child that has ended, or is about to, may have done so for its token.
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
    let passing = matches!(
        error,
        supervisor::SpawnError::Exhausted(_) | supervisor::SpawnError::TooSlow(_) | supervisor::SpawnError::Stopping
    );
    let error: BoxError = error.into();
    if passing {
        SpawnError::Unavailable(error)
    } else {
        SpawnError::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_child_that_has_ended_may_have_been_refused_for_its_token() {
        let limit = std::time::Duration::from_secs(1);
        let failed = |error| not_ready(ReadyError::Failed(error));
        assert!(matches!(failed(ConnectError::Ended), SpawnError::Failed(_)));
        let lacking = ConnectError::CapabilityMissing {
            capability: "tools".into(),
        };
        for error in [ConnectError::TimedOut, ConnectError::Unusable, lacking] {
            assert!(matches!(failed(error), SpawnError::NotReady(_)));
        }
        let slow = ReadyError::TooSlow { limit, stderr: vec![] };
        assert!(matches!(not_ready(slow), SpawnError::NotReady(_)));
    }
}
