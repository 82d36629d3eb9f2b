//! Builds the parts, wires them, serves, and takes everything down in order.

mod documents;
mod key;
mod signals;
mod upkeep;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use broker::Broker;
use oauth::{AuthorizationServer, forgejo::Forgejo, ports::SystemClock, sqlite::SqliteStore};
use session::Registry;
use supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    adapters::{
        authority::OAuthAuthority,
        child::ChildSpawner,
        mcp::{EndSessions, RegistryService},
        store::StoreProbe,
    },
    build,
    config::Config,
    parts,
};

/// Serves until the process is told to stop, and returns when no child is left.
///
/// # Errors
///
/// Whatever keeps the broker from serving: a store that cannot be opened, an address that is taken.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("no runtime can be started")?.block_on(serve(config))
}

async fn serve(mut config: Config) -> Result<()> {
    let tasks = TaskTracker::new();
    let shutdown = signals::shutdown(&tasks).context("signals cannot be handled")?;

    let store = SqliteStore::open(&config.store.path).await;
    let store = store.with_context(|| format!("the store {} cannot be opened", config.store.path.display()))?;
    let sealer = key::sealer(&mut config.store, &store).await?;
    let forgejo = Forgejo::new(parts::forgejo(&config)?)?;

    let endings = EndSessions::default();
    let server = AuthorizationServer::new(
        parts::oauth(&config),
        Arc::new(store.clone()),
        sealer,
        Arc::new(forgejo),
        Arc::new(SystemClock),
        Arc::new(endings.clone()),
        Some(documents::fetcher()?),
    )?;
    let resealed = server
        .reseal_accounts()
        .await
        .context("the accounts cannot be sealed anew")?;
    if resealed > 0 {
        tracing::info!(accounts = resealed, "sealed anew with the newest key");
    }
    let supervisor = Arc::new(Supervisor::new(parts::supervisor(&config))?);
    let spawner = ChildSpawner::new(Arc::clone(&supervisor), parts::program(&config), parts::bridge(&config));
    let registry = Arc::new(Registry::new(parts::session(&config), Arc::new(spawner)));
    endings.of(Arc::clone(&registry));
    let broker = Broker::new(
        parts::broker(&config)?,
        Arc::new(OAuthAuthority(server.clone())),
        Arc::new(RegistryService::new(registry, server.clone())),
        vec![Arc::new(StoreProbe(server.clone()))],
    );

    let listener = TcpListener::bind(config.server.listen).await;
    let listener = listener.with_context(|| format!("{} cannot be listened on", config.server.listen))?;
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(upkeep::run(server.clone())));
    tracing::info!(
        url = %config.server.public_url,
        listen = %config.server.listen,
        version = build::VERSION,
        revision = build::REVISION,
        "serving"
    );
    let outcome = broker.serve(listener, shutdown.clone()).await;

    shutdown.cancel();
    supervisor.stop_all().await;
    server.drain().await;
    store.close().await;
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    Ok(outcome?)
}
