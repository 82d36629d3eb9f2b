//! Runs work while extending its lease, which expires if the process dies.

use std::{future::Future, time::Duration};

/// Runs `work`, and extends its lease five times in each `lifetime`.
pub(crate) async fn with_extended_lease<T, F: Future<Output = ()>>(
    lifetime: Duration,
    work: impl Future<Output = T>,
    mut extend: impl FnMut() -> F,
) -> T {
    let extensions = async {
        loop {
            tokio::time::sleep(lifetime / 5).await;
            extend().await;
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = extensions => unreachable!("extensions never end"),
    }
}
