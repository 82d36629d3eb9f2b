//! Reading the body of a request within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time;

use crate::{body_budget::BodyReservation, http_error::HttpError};

/// Reads a whole body of at most `limit` bytes within `timeout`. The reservation grows by its
/// bytes.
///
/// Rejects a `Content-Length` over the limit before reading a byte.
pub(crate) async fn read(
    body: Incoming,
    limit: usize,
    timeout: Duration,
    reservation: &mut BodyReservation,
) -> Result<Bytes, HttpError> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(HttpError::BodyTooLarge);
    }
    let read = time::timeout(timeout, collect(body, limit, reservation)).await;
    read.unwrap_or(Err(HttpError::BodyTimeout))
}

/// Copies the frames: each may be a small part of a large buffer, which it would keep.
async fn collect(mut body: Incoming, limit: usize, reservation: &mut BodyReservation) -> Result<Bytes, HttpError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| HttpError::BodyIncomplete)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - whole.len() {
            return Err(HttpError::BodyTooLarge);
        }
        reservation.grow(data.len())?;
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}
