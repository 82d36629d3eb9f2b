//! The part of a backend that children and a shared server have in common: the `bridge`.

use bridge::{Bridge, ServerEnded};
use bytes::Bytes;
use http::Request;
use session::ports::{Reply, Snapshot, SpawnError};

pub(super) fn decode(snapshot: Option<Snapshot>) -> Result<Option<bridge::Snapshot>, SpawnError> {
    let snapshot = snapshot.map(|snapshot| bridge::Snapshot::from_bytes(&snapshot.0));
    snapshot.transpose().map_err(|error| SpawnError::Failed(error.into()))
}

pub(super) fn snapshot(bridge: &Bridge) -> Option<Snapshot> {
    bridge.snapshot().map(|snapshot| Snapshot(snapshot.to_bytes()))
}

/// Serves a request, and translates the markers of the response.
pub(super) async fn serve(bridge: &Bridge, request: Request<Bytes>) -> Reply {
    let response = bridge.serve(request).await;
    let unread = response.extensions().get::<bridge::NotProcessed>().is_some();
    if unread || response.extensions().get::<ServerEnded>().is_some() {
        return Reply::Gone { response, unread };
    }
    response.into()
}
