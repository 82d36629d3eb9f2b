//! Repeated writes of what must not be lost.

use std::{future::Future, time::Duration};

use crate::ports::StoreError;

/// The number of attempts.
const ATTEMPTS: u32 = 3;
/// The wait after the first failed attempt. It grows with each.
const BACKOFF: Duration = Duration::from_millis(200);

/// Writes upstream tokens to the store. The upstream no longer accepts the former ones, so that a
/// busy store is worth waiting for.
pub(crate) async fn store_with_retries<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut failed = 0;
    loop {
        match attempt().await {
            Err(_) if failed + 1 < ATTEMPTS => failed += 1,
            outcome => return outcome,
        }
        tokio::time::sleep(BACKOFF * failed).await;
    }
}
