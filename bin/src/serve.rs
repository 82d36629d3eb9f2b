//! Serving: logging, build, serve, drain.

mod backends;
mod build;
mod fetcher;
mod listener;
mod maintenance;
mod sealing_key;
mod signals;
mod test_token_grace;

use std::time::Duration;

use anyhow::{Context as _, Result};
use oauth::sqlite::SqliteStore;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::build::Application;
use crate::{config::Config, logging, version};

/// The time limit for the end of sign-ins and renewals, after the last request.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit for their end and that of the store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until a signal stops the process, and returns when no child is left.
pub(crate) fn run(config: &Config) -> Result<()> {
    logging::init(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let outcome = runtime.block_on(serve(config));
    // Threads that are still blocked had their time.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: &Config) -> Result<()> {
    let tasks = TaskTracker::new();
    let shutdown = signals::shutdown(&tasks).context("cannot handle signals")?;
    let path = &config.store.path;
    // Opening may wait for another process that migrates the database.
    let Some(store) = shutdown.run_until_cancelled(SqliteStore::open(path)).await else {
        tracing::info!("stopped before serving");
        return Ok(());
    };
    let store = store.with_context(|| format!("cannot open the store {}", path.display()))?;
    let application = Application::build(config, store).await?;
    let listener = listener::listener(config.server.listen).await?;

    let server = &application.server;
    tasks.spawn(
        shutdown
            .clone()
            .run_until_cancelled_owned(maintenance::run(server.clone())),
    );
    // Revocations are polled until the last request, which is later than the last new connection.
    let served = CancellationToken::new();
    let polling = maintenance::poll_revocations(server.clone());
    tasks.spawn(served.clone().run_until_cancelled_owned(polling));
    tracing::info!(
        url = %config.server.public_url,
        listen = %config.server.listen,
        version = version::VERSION,
        revision = version::REVISION,
        "serving"
    );
    let outcome = application.broker.serve(listener, shutdown.clone()).await;

    shutdown.cancel();
    served.cancel();
    tasks.close();
    let drained = async {
        application.backends.stop_all().await;
        // A sign-in or a renewal that waits for Forgejo or for the store must not keep the rest.
        let _ = timeout(SIGN_IN_TIMEOUT, server.finish_sign_ins()).await;
        if let Err(error) = server.record_uses().await {
            tracing::warn!(%error, "cannot store when grants were last used");
        }
        application.store.close().await;
        tasks.wait().await;
    };
    if timeout(CLOSE_TIMEOUT, drained).await.is_err() {
        // The rest ends with the process: children by their death signal, the store as after a
        // crash.
        tracing::warn!("stopping although children, sign-ins or the store are not closed");
    }
    tracing::info!("stopped");
    Ok(outcome?)
}
