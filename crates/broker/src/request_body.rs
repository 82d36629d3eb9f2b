//! Reading the body of a request within its limits.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time;

use crate::http_error::HttpError;

/// Reads a whole body of at most `limit` bytes within `timeout`.
///
/// Rejects a `Content-Length` over the limit before reading a byte.
pub(crate) async fn read(body: Incoming, limit: usize, timeout: Duration) -> Result<Bytes, HttpError> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(HttpError::BodyTooLarge);
    }
    match time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(HttpError::BodyTooLarge),
        Ok(Err(_)) => Err(HttpError::BodyIncomplete),
        Err(_elapsed) => Err(HttpError::BodyTimeout),
    }
}
