//! `session`'s servers as children of `supervisor`, each with a link of its conversation.
//!
//! A child whose output has ended is useless, even if it lives: it is stopped. The output of a
//! child that exits ends, and the link settles the requests in flight. Either end stops the other,
//! and the server is done when the child is gone.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bridge::{ConnectError, Conversation, Link, ServerEra};
use secrecy::SecretString;
use session::ports::{BoxFuture, Server, SpawnError, StartOrder};
use supervisor::{Child, ChildSpec, ReadyError, Supervisor};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{conversation::ServerStarter, credentials, era::EraDetector};
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

/// Starts children.
#[derive(Debug)]
pub(crate) struct ChildStarter {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) program: Program,
    pub(crate) era: Arc<EraDetector>,
    /// One task for each child: [`stop_with_output`].
    pub(crate) tasks: TaskTracker,
}

/// A child and the link over its streams.
#[derive(Debug)]
struct ChildServer {
    child: Child,
    link: Link,
    era: ServerEra,
    tag: Arc<str>,
    expires_at: SystemTime,
    /// Set by a stop that comes before the end of the child and before the end of its output,
    /// which are noticed in either order.
    stop_requested: AtomicBool,
}

impl ChildStarter {
    async fn start_child(&self, conversation: &Conversation, order: StartOrder) -> Result<Arc<dyn Server>, SpawnError> {
        let credential = order
            .caller
            .credentials
            .current()
            .await
            .map_err(credentials::spawn_error)?;

        let spec = self.program.child_spec(&credential.access_token, &order.tag);
        let era = self.era.detect(&self.supervisor, spec.clone()).await;
        let child = self.supervisor.spawn(spec).await.map_err(not_started)?;
        let io = child.take_io();
        let io = io.ok_or_else(|| SpawnError::Failed("the streams of the child are taken already".into()))?;
        let connected = async {
            match conversation.connect(order.number.0, io, era).await {
                // It may exit now, but that is not the reason.
                Err(error) if error.is_final() => Ok(Err(SpawnError::Unfit(error.into()))),
                other => other.map(Ok),
            }
        };
        let link = match child.ready(connected).await.map_err(not_ready).flatten() {
            Ok(link) => link,
            Err(error) => {
                self.era.forget(era).await;
                return Err(error);
            }
        };

        let server = Arc::new(ChildServer {
            child,
            link,
            era,
            tag: order.tag,
            expires_at: credential.expires_at,
            stop_requested: AtomicBool::new(false),
        });
        // The log line about the child's end belongs to the session.
        self.tasks
            .spawn(stop_with_output(Arc::clone(&server), Arc::clone(&self.era)).in_current_span());
        Ok(server)
    }
}

impl ServerStarter for ChildStarter {
    fn start<'a>(
        &'a self,
        conversation: &'a Conversation,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn Server>, SpawnError>> {
        Box::pin(self.start_child(conversation, order))
    }
}

impl Program {
    /// A spec by which only the file of the program can be looked up: it has no user's token.
    pub(crate) fn lookup(&self) -> ChildSpec {
        self.child_spec(&SecretString::default(), &"".into())
    }

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

impl Server for ChildServer {
    fn done(&self) -> CancellationToken {
        self.child.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.link.done().is_cancelled() && self.child.exit().is_none() {
                self.stop_requested.store(true, Relaxed);
            }
            // Concurrently: the child stops even if the link takes long.
            tokio::join!(self.link.close(), self.child.stop());
        })
    }

    fn is_gone(&self) -> bool {
        // The output ends before the child.
        self.link.done().is_cancelled()
    }

    fn has_answered(&self) -> bool {
        self.link.has_answered()
    }

    fn expires_at(&self) -> Option<SystemTime> {
        Some(self.expires_at)
    }
}

/// Stops the child at the end of its output.
async fn stop_with_output(server: Arc<ChildServer>, era: Arc<EraDetector>) {
    server.link.done().cancelled().await;
    let useless = !server.link.has_answered() && !server.stop_requested.load(Relaxed);
    if useless || server.link.has_refused_era() {
        era.forget(server.era).await;
    }
    server.child.stop().await;
    let session = &server.tag;
    let exit = server.child.exit();
    let exit = exit.map_or_else(|| "ended with unknown status".to_owned(), |exit| exit.to_string());
    if server.stop_requested.load(Relaxed) {
        tracing::debug!(%session, exit, "the child has ended");
    } else {
        let said = server.child.last_stderr().join("\n");
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
    use supervisor::SpawnError::{Exhausted, Invalid, Isolation, NotExecutable, NotFound, Os, Stopping, TooSlow};
    let kind = match error {
        Exhausted(_) | TooSlow(_) | Stopping => SpawnError::Unavailable,
        NotFound { .. } | NotExecutable { .. } => SpawnError::Missing,
        Invalid(_) | Isolation { .. } | Os(_) | _ => SpawnError::Failed,
    };
    kind(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoOwner;

    impl bridge::Owner for NoOwner {
        fn want(&self, _after: u64) {}
        fn changed(&self) {}
        fn touch(&self) {}
    }

    #[test]
    fn only_a_child_that_exited_may_have_refused_its_token() {
        let limit = std::time::Duration::from_secs(1);
        let failed = |error| not_ready(ReadyError::Failed(error));
        assert!(matches!(failed(ConnectError::Ended), SpawnError::Failed(_)));
        assert!(matches!(failed(ConnectError::TimedOut), SpawnError::NotReady(_)));
        let slow = ReadyError::TooSlow { limit, stderr: vec![] };
        assert!(matches!(not_ready(slow), SpawnError::NotReady(_)));
    }

    #[test]
    fn missing_program_is_not_the_fault_of_the_token() {
        let program = std::ffi::OsString::from("tool");
        let not_found = supervisor::SpawnError::NotFound {
            program: program.clone(),
        };
        let not_executable = supervisor::SpawnError::NotExecutable {
            program,
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        for error in [not_found, not_executable] {
            assert!(matches!(not_started(error), SpawnError::Missing(_)));
        }
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
        // The link notices an end only later: its stream is still open.
        let (near, _far) = tokio::io::duplex(64);
        let conversation = Conversation::new(bridge::Config::default(), "tag", "grant", Arc::new(NoOwner), None);
        let link = conversation.connect(1, near, ServerEra::Legacy).await.unwrap();
        let server = ChildServer {
            child,
            link,
            era: ServerEra::Legacy,
            tag: "tag".into(),
            expires_at: SystemTime::UNIX_EPOCH,
            stop_requested: AtomicBool::new(false),
        };
        server.stop().await;
        assert!(!server.stop_requested.load(Relaxed));
    }
}
