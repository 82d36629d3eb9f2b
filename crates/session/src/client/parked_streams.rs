//! GET streams and the backend: a stream ends with its backend, and waits while the session is
//! dormant.
//!
//! The stream of a backend ends cleanly when the backend is replaced or detached, so that the
//! client connects again. On a dormant session no backend is started for a stream: it is parked,
//! kept open with comments, and ends when the session is revived.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, channel::Channel};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::serve_error::ServeError;
use crate::{
    ports::{Body, BoxError},
    state::{AttachedBackend, Phase, RegistryState, Session},
    sync::sleep,
};

/// The number of streams that may be parked on one session.
const MAX_PARKED: usize = 16;

/// A comment, which clients skip (HTML, "Server-sent events", "Interpreting an event stream").
const KEEP_ALIVE: &[u8] = b":\n\n";

/// A body that ends cleanly when a token is cancelled.
struct UntilCancelled {
    body: Body,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Counts a parked stream of a session.
struct ParkedGuard(Arc<Session>);

/// Ends the stream of a backend when the backend is retired.
pub(super) fn until_retired(response: Response<Body>, backend: &AttachedBackend) -> Response<Body> {
    let cancelled = Box::pin(backend.retired.clone().cancelled_owned());
    response.map(|body| UntilCancelled { body, cancelled }.boxed_unsync())
}

/// Parks a stream until the session is revived or ends.
///
/// # Errors
///
/// [`ServeError::TooManyStreams`].
pub(super) fn park(state: &RegistryState, session: &Arc<Session>) -> Result<Response<Body>, ServeError> {
    let parked = session.parked_streams.fetch_add(1, Ordering::Relaxed);
    let guard = ParkedGuard(Arc::clone(session));
    if parked >= MAX_PARKED {
        return Err(ServeError::TooManyStreams);
    }
    let (mut events, body) = Channel::<Bytes, BoxError>::new(1);
    let keep_alive = state.config.keep_alive;
    state.tasks.spawn(async move {
        let session = &guard.0;
        loop {
            // Before the check, so that a revival in between is not missed.
            let attached = session.attached.notified();
            let dormant = matches!(session.lock().lifecycle.phase(), Phase::Dormant { .. });
            if !dormant || events.send_data(Bytes::from_static(KEEP_ALIVE)).await.is_err() {
                return;
            }
            tokio::select! {
                () = attached => {}
                () = session.ended.cancelled() => return,
                () = sleep(keep_alive) => {}
            }
        }
    });
    let mut response = Response::new(body.boxed_unsync());
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that buffer responses would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

impl http_body::Body for UntilCancelled {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Frames that are there already are sent first.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.cancelled.as_mut().poll(cx).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for ParkedGuard {
    fn drop(&mut self) {
        self.0.parked_streams.fetch_sub(1, Ordering::Relaxed);
    }
}
