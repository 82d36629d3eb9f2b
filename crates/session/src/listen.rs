//! Streams that listen (GET): they show that a client is there, not that it will come back, so they hold nothing up.
//!
//! On a backend they end cleanly when the backend is replaced or put to sleep, so that the client connects again and gets
//! what is there then. On a session that sleeps nothing is started for them: they are kept open here, and end when the session
//! wakes.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, channel::Channel};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    ports::{Body, BoxError},
    refusal::Refusal,
    registry::Shared,
    seat::{Seat, Session},
    sync::sleep,
};

/// How many streams may listen on a session that sleeps.
const MOST: usize = 16;

/// A body that ends early, and cleanly, when a token is cancelled.
struct Until {
    body: Body,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// One of the streams on a session that sleeps.
struct Listener(Arc<Session>);

/// The stream of a backend, until the backend is no longer the session's.
pub(crate) fn until_retired(response: Response<Body>, seat: &Seat) -> Response<Body> {
    let over = Box::pin(seat.retired.clone().cancelled_owned());
    response.map(|body| Until { body, over }.boxed_unsync())
}

/// A stream on a session that sleeps. It says nothing, and ends when the session wakes or ends.
pub(crate) fn parked(shared: &Arc<Shared>, session: &Arc<Session>) -> Result<Response<Body>, Refusal> {
    let listeners = session.listeners.fetch_add(1, Ordering::Relaxed);
    let listener = Listener(Arc::clone(session));
    if listeners >= MOST {
        return Err(Refusal::TooManyListeners);
    }
    let (mut events, body) = Channel::<Bytes, BoxError>::new(1);
    let keep_alive = shared.config.keep_alive;
    shared.tasks.spawn(async move {
        let session = &listener.0;
        loop {
            // Before the look, so that a waking in between is not missed.
            let woken = session.woken.notified();
            if session.seat().is_some() || !session.inner().life.is_live() {
                return;
            }
            // A comment, which every client skips (HTML, "Server-sent events", "Interpreting an event stream").
            if events.send_data(Bytes::from_static(b":\n\n")).await.is_err() {
                return;
            }
            tokio::select! {
                () = woken => {}
                () = session.ended.cancelled() => return,
                () = sleep(keep_alive) => {}
            }
        }
    });
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather answers would hold events back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // What is there already is sent first.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.over.as_mut().poll(cx).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}
