//! The bridge itself: connect, serve, close.
//!
//! A [`Bridge`] owns one task, which owns the io. Dropping the bridge tells the task to end and does not wait for it.

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
    driver::Driver,
    envelope::{Envelope, Kind},
    error::ConnectError,
    exchange,
    faults::{Fault, Faults},
    legacy::{self, Legacy, Snapshot},
    shared::{Outlet, Shared},
    streams::{Form, Reader},
};

/// One JSON-RPC byte stream, served to many HTTP exchanges.
///
/// All methods take `&self` and may run at the same time. When the bridge is dropped the stream is closed as by
/// [`close`](Self::close), and exchanges that are still open get their errors.
pub struct Bridge {
    config: Config,
    shared: Arc<Shared>,
    faults: Arc<Faults>,
    tasks: TaskTracker,
    done: CancellationToken,
    closing: DropGuard,
}

impl Bridge {
    /// Connects to a server over its output and input, such as a child's stdout and stdin.
    ///
    /// With a snapshot the recorded handshake is replayed first, then the log level and the subscriptions, and the bridge that is
    /// returned stands in for the one that the snapshot is of. A level or subscription that the server refuses is counted and left out. Without one it is returned at once. Must be called within a tokio runtime. Dropping the future
    /// closes the stream.
    ///
    /// # Errors
    ///
    /// Only with a snapshot, after the io has been dropped: [`ConnectError::Ended`] and [`ConnectError::TimedOut`], after which another
    /// server may do; [`ConnectError::Refused`], [`ConnectError::Unusable`], [`ConnectError::VersionChanged`] and
    /// [`ConnectError::CapabilityMissing`], after which a server of the same sort will not.
    pub async fn connect<I>(io: I, config: Config, resume: Option<&Snapshot>) -> Result<Self, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let bridge = Self::start(io, config);
        if let Some(snapshot) = resume
            && let Err(error) = bridge.replay(snapshot).await
        {
            bridge.close().await;
            return Err(error);
        }
        Ok(bridge)
    }

    /// Serves one HTTP exchange of the session.
    ///
    /// A POST is answered with JSON or with an event stream, a GET with an event stream, anything else with 405. Once the server is
    /// gone a request is answered with a JSON-RPC error that carries its id, and the response is marked with
    /// [`ServerEnded`](crate::ServerEnded), and with [`Unread`](crate::Unread) if the server can have read nothing of the request. The answer to `initialize` is waited for and never becomes a stream by silence. Dropping the future, or the body,
    /// hangs up, and nothing is cancelled: if the client has been given an event id it may come back for the answer with `Last-Event-ID`, else
    /// the answer is dropped when it comes.
    pub async fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        exchange::serve(&self.shared, &self.config, request).await
    }

    /// A token that is cancelled once the stream has ended, by whichever side. By then the io is dropped and whatever waited has its
    /// error. Cancelling the token oneself has no effect on the bridge.
    #[must_use]
    pub fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    /// Ends the stream: nothing more is written, the io is dropped, whatever waits gets an error.
    ///
    /// Returns when that is so. Idempotent, and safe from any number of callers. Dropping the future does not take it back.
    pub async fn close(&self) {
        self.closing.token().cancel();
        self.tasks.wait().await;
    }

    /// What a fresh server must be told to stand in for this one; `None` before the handshake has a result.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.shared.step(|machine| machine.snapshot())
    }

    /// How often a fault has been passed over.
    #[must_use]
    pub fn faults(&self, fault: Fault) -> u64 {
        self.faults.total(fault)
    }

    fn start<I>(io: I, config: Config) -> Self
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = config.bounded();
        let faults = Arc::new(Faults::default());
        let shared = Shared::new(Legacy::new(config.clone(), Arc::clone(&faults)));
        let (closing, done, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let driver = Driver {
            shared: Arc::clone(&shared),
            faults: Arc::clone(&faults),
            max_line: config.max_line,
            closing: closing.clone(),
            done: done.clone(),
        };
        tasks.spawn(driver.run(io).in_current_span());
        tasks.close();
        Self {
            config,
            shared,
            faults,
            tasks,
            done,
            closing: closing.drop_guard(),
        }
    }

    async fn replay(&self, snapshot: &Snapshot) -> Result<(), ConnectError> {
        let replayed = timeout(self.config.handshake_timeout, self.replay_in_full(snapshot));
        replayed.await.map_err(|_| ConnectError::TimedOut)?
    }

    async fn replay_in_full(&self, snapshot: &Snapshot) -> Result<(), ConnectError> {
        let reader = self
            .shared
            .step(|machine| machine.replay(Instant::now(), snapshot))
            .ok_or(ConnectError::Unusable)?;
        check_replay(&self.answer_to(reader).await?, snapshot)?;
        if !snapshot.is_initialized() {
            return Ok(());
        }
        let readers = self.shared.step(|machine| {
            machine.confirm();
            machine.replay_wishes(Instant::now(), snapshot)
        });
        for reader in readers {
            if let Kind::Response { error: true, .. } = self.answer_to(reader).await?.kind() {
                self.faults.count(Fault::ReplayRefused);
            }
        }
        Ok(())
    }

    /// The server's answer to a request of the bridge's own.
    async fn answer_to(&self, reader: Reader) -> Result<Envelope, ConnectError> {
        let form = Outlet::new(&self.shared, reader).form().await;
        if self.shared.step(|machine| machine.has_ended()) {
            return Err(ConnectError::Ended);
        }
        match form {
            Form::Whole(lines) => {
                let line = lines.first().ok_or(ConnectError::Ended)?;
                Envelope::parse(line).map_err(|_| ConnectError::Unusable)
            }
            Form::Events => Err(ConnectError::Unusable),
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

fn check_replay(answer: &Envelope, snapshot: &Snapshot) -> Result<(), ConnectError> {
    if let Kind::Response { error: true, .. } = answer.kind() {
        let code = legacy::error_code(answer.outcome()).ok_or(ConnectError::Unusable)?;
        return Err(ConnectError::Refused { code });
    }
    let negotiated = legacy::result_version(answer.outcome()).ok_or(ConnectError::Unusable)?;
    if negotiated != snapshot.version() {
        return Err(ConnectError::VersionChanged {
            held: snapshot.version().to_owned(),
            negotiated,
        });
    }
    match snapshot.missing_in(answer.outcome()) {
        Some(capability) => Err(ConnectError::CapabilityMissing { capability }),
        None => Ok(()),
    }
}
