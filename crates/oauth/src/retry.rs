//! Writes of what must not be lost, repeated until the store takes them.

use std::{future::Future, time::Duration};

use crate::{ids::UserId, ports::StoreError};

/// The wait between two attempts.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the upstream tokens of a sign-in to the store. The upstream no longer accepts the former
/// ones, so that there is no last attempt.
pub(crate) async fn until_stored<T, F>(user: UserId, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut failed = false;
    loop {
        match attempt().await {
            Ok(stored) => return stored,
            Err(error) if !failed => {
                failed = true;
                let error = &error as &dyn std::error::Error;
                tracing::error!(user = user.0, error, "sign-in not stored: tried again each second");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
