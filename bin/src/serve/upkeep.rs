//! Work that comes round by itself: the store forgets what has expired.

use std::time::Duration;

use oauth::AuthorizationServer;
use tokio::time::{MissedTickBehavior, interval};

/// How often. Nothing depends on it but the size of the database: what has expired is refused anyway.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// Runs until it is dropped. Cancel safe: a purge is one transaction or several, each whole.
pub(super) async fn run(server: AuthorizationServer) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = server.purge_expired().await {
            tracing::warn!(%error, "the store could not forget what has expired");
        }
    }
}
