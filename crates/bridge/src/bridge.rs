//! The public type of the crate: connect, serve, close.
//!
//! A [`Bridge`] owns one task, and the task owns the io. Dropping the bridge ends the task without
//! waiting for it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument;

use crate::{
    Body,
    config::Config,
    dropped::DropReason,
    error::ConnectError,
    exchange,
    jsonrpc::{Envelope, MessageKind},
    legacy::{self, Snapshot, StateMachine},
    link::task::LinkTask,
    state::{BridgeState, StreamHandle},
    streams::{Reader, ResponseMode},
};

/// One JSON-RPC byte stream, served to many HTTP exchanges.
///
/// All methods take `&self` and may run concurrently. Dropping the bridge closes the stream like
/// [`close`](Self::close), and open exchanges get their errors.
pub struct Bridge {
    config: Config,
    state: Arc<BridgeState>,
    tasks: TaskTracker,
    done: CancellationToken,
    closing: DropGuard,
}

impl Bridge {
    /// Connects to a server over its output and input, such as a child's stdout and stdin.
    ///
    /// With a snapshot, the bridge first replays the recorded handshake, then the log level and the
    /// subscriptions; then it replaces the bridge of the snapshot. A setting that the server
    /// rejects is counted and left out. Without a snapshot, the method returns at once. Must be
    /// called within a tokio runtime. Dropping the future closes the stream.
    ///
    /// # Errors
    ///
    /// Only with a snapshot, after the io has been dropped. After [`ConnectError::Ended`] and
    /// [`ConnectError::TimedOut`] another server may succeed; after [`ConnectError::Refused`],
    /// [`ConnectError::Unusable`], [`ConnectError::VersionChanged`] and
    /// [`ConnectError::CapabilityMissing`] another server of the same kind will not.
    pub async fn connect<I>(io: I, config: Config, resume: Option<&Snapshot>) -> Result<Self, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let bridge = Self::start(io, config);
        if let Some(snapshot) = resume {
            let replayed = timeout(bridge.config.handshake_timeout, bridge.replay(snapshot)).await;
            if let Err(error) = replayed.unwrap_or(Err(ConnectError::TimedOut)) {
                bridge.close().await;
                return Err(error);
            }
        }
        Ok(bridge)
    }

    /// Serves one HTTP exchange of the session.
    ///
    /// A POST is answered with JSON or an event stream, a GET with an event stream, other methods
    /// with 405. After the end of the server a request gets a JSON-RPC error with its id, and the
    /// response carries the extension [`ServerEnded`](crate::ServerEnded), and also
    /// [`NotProcessed`](crate::NotProcessed) if the server cannot have read any part of the
    /// request. Silence never turns the answer to `initialize` into an event stream.
    ///
    /// Dropping the future or the body cancels nothing at the server. A client that has an event id
    /// can resume with `Last-Event-ID`; otherwise the response is dropped.
    pub async fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        exchange::serve(&self.state, &self.config, request).await
    }

    /// A token that is cancelled when either side has ended the stream. By then the io is dropped
    /// and everything that waited has its error. Cancelling the token has no effect on the bridge.
    #[must_use]
    pub fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    /// Ends the stream: stops writing, drops the io, and fails everything that waits.
    ///
    /// Returns when that is done. Idempotent, for any number of concurrent callers. Dropping the
    /// future does not undo the close.
    pub async fn close(&self) {
        self.closing.token().cancel();
        self.tasks.wait().await;
    }

    /// The state that a fresh server needs to replace this one; `None` before the handshake has a
    /// result.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.state.step(|machine| machine.handshake.snapshot())
    }

    fn start<I>(io: I, config: Config) -> Self
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = config.bounded();
        let state = BridgeState::new(StateMachine::new(config.clone()));
        let (closing, done, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let task = LinkTask {
            state: Arc::clone(&state),
            config: config.clone(),
            closing: closing.clone(),
            done: done.clone(),
        };
        tasks.spawn(task.run(io).in_current_span());
        tasks.close();
        Self {
            config,
            state,
            tasks,
            done,
            closing: closing.drop_guard(),
        }
    }

    async fn replay(&self, snapshot: &Snapshot) -> Result<(), ConnectError> {
        let reader = self
            .state
            .step(|machine| machine.replay_handshake(Instant::now(), snapshot))
            .ok_or(ConnectError::Unusable)?;
        check_handshake(&self.response_on(reader).await?, snapshot)?;
        if !snapshot.is_initialized() {
            return Ok(());
        }
        let readers = self
            .state
            .step(|machine| machine.replay_settings(Instant::now(), snapshot));
        for reader in readers {
            if let MessageKind::Response { error: true, .. } = self.response_on(reader).await?.kind() {
                self.config.drop_counts.count(DropReason::SettingLost);
            }
        }
        Ok(())
    }

    /// The server's response to a request of the bridge itself.
    async fn response_on(&self, reader: Reader) -> Result<Envelope, ConnectError> {
        let mode = StreamHandle::new(&self.state, reader).response_mode().await;
        if self.state.step(|machine| machine.has_ended()) {
            return Err(ConnectError::Ended);
        }
        match mode {
            ResponseMode::Json(lines) => {
                let line = lines.first().ok_or(ConnectError::Ended)?;
                Envelope::parse(line).map_err(|_| ConnectError::Unusable)
            }
            ResponseMode::Sse => Err(ConnectError::Unusable),
        }
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("done", &self.done.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Checks the response to a replayed `initialize`.
fn check_handshake(response: &Envelope, snapshot: &Snapshot) -> Result<(), ConnectError> {
    if let MessageKind::Response { error: true, .. } = response.kind() {
        let code = legacy::error_code(response.outcome()).ok_or(ConnectError::Unusable)?;
        return Err(ConnectError::Refused { code });
    }
    let negotiated = legacy::result_version(response.outcome()).ok_or(ConnectError::Unusable)?;
    if negotiated != snapshot.version() {
        return Err(ConnectError::VersionChanged {
            held: snapshot.version().to_owned(),
            negotiated,
        });
    }
    match snapshot.missing_in(response.outcome()) {
        Some(capability) => Err(ConnectError::CapabilityMissing { capability }),
        None => Ok(()),
    }
}
