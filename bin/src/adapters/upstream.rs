//! `session`'s backends are links to one shared server (`upstream`), spoken to through `bridge`.
//!
//! Nothing is started, and no backend is bound to a token: each message asks for the one that its user has then (the last one is kept
//! for the goodbye). So a renewal, or a new sign-in, moves nothing, and no expiry is told. Links renew a token that the server refuses. The snapshot is the bridge's, as with a child, so records outlive a change of mode.

use std::sync::Arc;

use bridge::{Bridge, ServerEnded};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use session::ports::{Backend, BackendGone, Body, BoxFuture, Snapshot, SpawnError, SpawnOrder, Spawner};
use tokio::{io::duplex, sync::watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument as _;

use super::child::no_credential;
use crate::upstream::{Endpoint, Link, PIPE, carry};

/// Makes a link to the shared server for each session.
#[derive(Debug)]
pub struct UpstreamSpawner {
    endpoint: Arc<Endpoint>,
    bridge: bridge::Config,
    /// One task for each link.
    carriers: TaskTracker,
}

/// A link and the bridge over it.
#[derive(Debug)]
struct UpstreamBackend {
    bridge: Arc<Bridge>,
    /// How many streams of the client listen.
    listeners: watch::Sender<usize>,
    /// Ends the link, also when the backend is dropped.
    closing: DropGuard,
    /// Cancelled when the link has come to its end.
    gone: CancellationToken,
}

/// One of the streams that listen.
struct Listener(watch::Sender<usize>);

impl UpstreamSpawner {
    /// Links to this endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint, bridge: bridge::Config) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            bridge,
            carriers: TaskTracker::new(),
        }
    }

    /// Waits until the last link has come to its end. To be called once nothing is spawned any more.
    pub async fn settled(&self) {
        self.carriers.close();
        self.carriers.wait().await;
    }

    async fn link(&self, order: SpawnOrder) -> Result<Arc<dyn Backend>, SpawnError> {
        let credentials = Arc::clone(&order.caller.credentials);
        // Who has to sign in again is told so now, not by an error of a later request.
        credentials.current().await.map_err(no_credential)?;
        let snapshot = order.snapshot.map(|snapshot| bridge::Snapshot::from_bytes(&snapshot.0));
        let snapshot = snapshot.transpose().map_err(|error| SpawnError::Failed(error.into()))?;

        let link = Link::new(
            Arc::clone(&self.endpoint),
            credentials,
            order.caller.user.clone(),
            self.bridge.clone(),
            order.tag,
        );
        let (near, far) = duplex(PIPE);
        let (listeners, listening) = watch::channel(0);
        let (closing, gone) = (CancellationToken::new(), CancellationToken::new());
        let (carrying, going) = (
            carry(Arc::clone(&link), far, listening, closing.clone()),
            gone.clone().drop_guard(),
        );
        let carrying = async move {
            carrying.await;
            drop(going);
        };
        self.carriers.spawn(carrying.in_current_span());
        // Should this future be dropped, the link comes to its end with it.
        let closing = closing.drop_guard();
        let bridge = Bridge::connect(near, self.bridge.clone(), snapshot.as_ref()).await;
        let bridge = Arc::new(bridge.map_err(|error| SpawnError::Failed(error.into()))?);
        link.serves(&bridge);
        Ok(Arc::new(UpstreamBackend {
            bridge,
            listeners,
            closing,
            gone,
        }))
    }
}

impl Spawner for UpstreamSpawner {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        Box::pin(self.link(order))
    }

    fn renews_credentials(&self) -> bool {
        true
    }
}

impl UpstreamBackend {
    /// Counts a stream for as long as it is there.
    fn heard(&self, response: Response<Body>) -> Response<Body> {
        self.listeners.send_modify(|count| *count += 1);
        let listener = Listener(self.listeners.clone());
        response.map(|body| {
            body.map_frame(move |frame| {
                let _listens = &listener;
                frame
            })
            .boxed_unsync()
        })
    }
}

impl Backend for UpstreamBackend {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(async {
            let listens = request.method() == Method::GET;
            let mut response = self.bridge.serve(request).await;
            if response.extensions().get::<ServerEnded>().is_some() {
                response.extensions_mut().insert(BackendGone);
            }
            if response.extensions().get::<bridge::NotProcessed>().is_some() {
                response.extensions_mut().insert(session::ports::NotProcessed);
            }
            if listens && response.status().is_success() {
                return self.heard(response);
            }
            response
        })
    }

    fn done(&self) -> CancellationToken {
        self.bridge.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closing.token().cancel();
            tokio::join!(self.bridge.close(), self.gone.cancelled());
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.bridge.snapshot().map(|snapshot| Snapshot(snapshot.to_bytes()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
