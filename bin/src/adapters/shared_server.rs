//! `session`'s backends as sessions at one shared server (`shared_server`), each behind a `bridge`.
//!
//! No process is started, and no backend is bound to a token: each message takes the current token
//! of its user. A renewal or a new sign-in therefore replaces no backend, and a backend reports no
//! expiry. The snapshot is the bridge's, as with a child, so records outlive a change of mode.

use std::sync::Arc;

use ::bridge::Bridge;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use session::ports::{Backend, Body, BoxFuture, Reply, Snapshot, SpawnError, SpawnOrder, Spawner};
use tokio::{io::duplex, sync::watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument as _;

use super::{bridge, credentials};
use crate::shared_server::{Endpoint, PIPE_CAPACITY, SharedServerSession, pump};

/// Opens a session at the shared server for each session of the broker.
#[derive(Debug)]
pub(crate) struct SharedServerSpawner {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) bridge: ::bridge::Config,
    /// One pump for each session.
    pub(crate) tasks: TaskTracker,
}

/// A session at the server, and the bridge over it.
#[derive(Debug)]
struct UpstreamBackend {
    bridge: Arc<Bridge>,
    /// The number of the client's streams for messages of the server.
    listeners: watch::Sender<usize>,
    /// Stops the pump, also when the backend is dropped.
    closing: DropGuard,
    /// Cancelled when the pump has stopped.
    stopped: CancellationToken,
}

/// Counts one listening stream until it is dropped.
struct ListenerGuard(watch::Sender<usize>);

impl SharedServerSpawner {
    async fn open(&self, order: SpawnOrder) -> Result<Arc<dyn Backend>, SpawnError> {
        let user_credentials = Arc::clone(&order.caller.credentials);
        // A user who has to sign in again gets the error now, not with a later request.
        user_credentials.current().await.map_err(credentials::spawn_error)?;
        let snapshot = bridge::decode(order.snapshot)?;

        let session = SharedServerSession::new(
            Arc::clone(&self.endpoint),
            user_credentials,
            order.caller.user.clone(),
            self.bridge.clone(),
            order.tag,
        );
        let (near, far) = duplex(PIPE_CAPACITY);
        let (listeners, listening) = watch::channel(0);
        let (closing, stopped) = (CancellationToken::new(), CancellationToken::new());
        let pump = pump(Arc::clone(&session), far, listening, closing.clone());
        let stop_guard = stopped.clone().drop_guard();
        let pump = async move {
            pump.await;
            drop(stop_guard);
        };
        self.tasks.spawn(pump.in_current_span());
        // Dropping this future ends the session.
        let closing = closing.drop_guard();
        let bridge = Bridge::connect(near, self.bridge.clone(), snapshot.as_ref()).await;
        let bridge = Arc::new(bridge.map_err(|error| SpawnError::Failed(error.into()))?);
        session.set_bridge(&bridge);
        Ok(Arc::new(UpstreamBackend {
            bridge,
            listeners,
            closing,
            stopped,
        }))
    }
}

impl Spawner for SharedServerSpawner {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(self.open(order))
    }

    fn renews_credentials(&self) -> bool {
        true
    }
}

impl UpstreamBackend {
    /// Counts a listening stream until its end.
    fn count_listener(&self, response: Response<Body>) -> Response<Body> {
        self.listeners.send_modify(|count| *count += 1);
        let guard = ListenerGuard(self.listeners.clone());
        response.map(|body| {
            body.map_frame(move |frame| {
                let _guard = &guard;
                frame
            })
            .boxed_unsync()
        })
    }
}

impl Backend for UpstreamBackend {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Reply> {
        Box::pin(async {
            let listens = request.method() == Method::GET;
            match bridge::serve(&self.bridge, request).await {
                Reply::Response(response) if listens && response.status().is_success() => {
                    self.count_listener(response).into()
                }
                reply @ (Reply::Response(_) | Reply::Gone { .. }) => reply,
            }
        })
    }

    fn done(&self) -> CancellationToken {
        self.bridge.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closing.token().cancel();
            tokio::join!(self.bridge.close(), self.stopped.cancelled());
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        bridge::snapshot(&self.bridge)
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
