//! Listening streams: each ends cleanly with its server, and waits while the session is dormant.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    ports::{Body, BoxError, BoxFuture, SessionHandle},
    sync::sleep,
};

/// A comment, which clients skip (HTML, "Server-sent events", "Interpreting an event stream").
const COMMENT: &[u8] = b":\n\n";

/// A body that ends cleanly when a token is cancelled.
struct UntilCancelled {
    body: Body,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// An endless body of comments, the first one at once.
struct Comments {
    interval: Duration,
    next: Option<BoxFuture<'static, ()>>,
    _guard: ParkedGuard,
}

/// Counts a parked stream. Its end is reported: the conversation may be blank.
pub(super) struct ParkedGuard {
    pub(super) count: Option<Arc<()>>,
    pub(super) handle: SessionHandle,
}

/// Ends the stream when `token` is cancelled.
pub(super) fn until_cancelled(response: Response<Body>, token: CancellationToken) -> Response<Body> {
    let cancelled = Box::pin(token.cancelled_owned());
    response.map(|body| UntilCancelled { body, cancelled }.boxed_unsync())
}

/// A stream of comments.
pub(super) fn comments(interval: Duration, guard: ParkedGuard) -> Response<Body> {
    let comments = Comments {
        interval,
        next: None,
        _guard: guard,
    };
    let mut response = Response::new(comments.boxed_unsync());
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that buffer responses would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl http_body::Body for Comments {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(next) = &mut self.next {
            std::task::ready!(next.as_mut().poll(cx));
        }
        let interval = self.interval;
        self.next = Some(Box::pin(sleep(interval)));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))))
    }
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
        self.count = None;
        self.handle.changed();
    }
}
