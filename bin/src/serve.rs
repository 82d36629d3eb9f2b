//! Builds the parts, wires them, serves, and takes everything down in order.

mod backends;
mod documents;
mod expiry;
mod key;
mod listener;
mod signals;
mod upkeep;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use broker::Broker;
use oauth::{AuthorizationServer, forgejo::Forgejo, ports::SystemClock, sqlite::SqliteStore};
use session::{RegistryBuilder, sqlite::SqliteRecords};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::backends::Backends;
use crate::{
    adapters::{
        authority::OAuthAuthority,
        mcp::{RegistryService, SessionEvents},
        metrics::{Counts, MetricsPage},
        records::SessionSeal,
        store::StoreProbe,
    },
    build,
    config::{Config, crates},
};

/// How long it may take, once nothing is served any more, until sign-ins have ended and the store is closed.
const AFTER_SERVING: Duration = Duration::from_secs(5);

/// Serves until the process is told to stop, and returns when no child is left.
///
/// # Errors
///
/// Whatever keeps the broker from serving: a store that cannot be opened, an address that is taken.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no runtime can be started")?;
    let outcome = runtime.block_on(serve(config));
    // Whatever still blocks a thread had its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> Result<()> {
    let tasks = TaskTracker::new();
    let shutdown = signals::shutdown(&tasks).context("signals cannot be handled")?;

    // It may have to wait for another process that brings the tables up to date.
    let opening = shutdown.run_until_cancelled(SqliteStore::open(&config.store.path));
    let Some(store) = opening.await else {
        tracing::info!("stopped before it served");
        return Ok(());
    };
    let store = store.with_context(|| format!("the store {} cannot be opened", config.store.path.display()))?;
    let sealer = key::sealer(&config.store, &store).await?;
    let forgejo = Forgejo::new(crates::forgejo(&config))?;

    let events = SessionEvents::default();
    let server = AuthorizationServer::new(
        expiry::exact_in_tests(crates::oauth(&config))?,
        Arc::new(store.clone()),
        sealer.clone(),
        Arc::new(forgejo),
        Arc::new(SystemClock),
        Arc::new(events.clone()),
        Some(documents::fetcher()?),
    )?;
    let resealed = server
        .reseal_accounts()
        .await
        .context("the accounts cannot be sealed anew")?;
    if resealed > 0 {
        tracing::info!(accounts = resealed, "sealed anew with the newest key");
    }
    let counts = Arc::new(Counts::default());
    let backends = Backends::new(&config, counts.drop_counts())?;
    let (writer, readers) = (store.writer().clone(), store.readers().clone());
    let mut records = SqliteRecords::from_pools(writer, readers, Arc::new(SessionSeal(sealer))).await?;
    if store.found_others() {
        records = records.shared_with_other_processes();
    }
    let registry = RegistryBuilder::new(crates::session(&config), backends.spawner())
        .records(Arc::new(records))
        .observer(Arc::<Counts>::clone(&counts))
        .open()
        .await;
    let registry = Arc::new(registry.context("the sessions of before cannot be loaded")?);
    events.of(Arc::clone(&registry));
    let metrics = MetricsPage::new(counts, Arc::clone(&registry), backends.supervisor());
    let mut broker = Broker::new(
        crates::broker(&config)?,
        Arc::new(OAuthAuthority(server.clone())),
        Arc::new(RegistryService::new(registry, server.clone())),
        vec![Arc::new(StoreProbe(server.clone()))],
    );
    if config.metrics.enabled {
        broker = broker.with_metrics(Arc::new(metrics), config.metrics.token.clone());
    }

    let listener = listener::listener(config.server.listen).await?;
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(upkeep::run(server.clone())));
    // What others end is heard for as long as anything is served, which is longer than anyone is let in.
    let served = CancellationToken::new();
    tasks.spawn(served.clone().run_until_cancelled_owned(upkeep::hear(server.clone())));
    tracing::info!(
        url = %config.server.public_url,
        listen = %config.server.listen,
        version = build::VERSION,
        revision = build::REVISION,
        "serving"
    );
    let outcome = broker.serve(listener, shutdown.clone()).await;

    shutdown.cancel();
    served.cancel();
    tasks.close();
    let rest = async {
        backends.drained().await;
        server.drain().await;
        if let Err(error) = server.record_uses().await {
            tracing::warn!(%error, "when grants were last used is not written down");
        }
        store.close().await;
        tasks.wait().await;
    };
    if timeout(AFTER_SERVING, rest).await.is_err() {
        // What is left ends with the process: children by their death signal, the store as after a crash.
        tracing::warn!("not everything came to its end in time");
    }
    tracing::info!("stopped");
    Ok(outcome?)
}
