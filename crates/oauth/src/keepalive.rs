//! Work under a registration that expires when its process dies.

use std::{future::Future, time::Duration};

/// Runs `work`, and extends its registration five times in each `lifetime`.
pub(crate) async fn extending<T, F: Future<Output = ()>>(
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
