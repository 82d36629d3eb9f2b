//! Builds the parts, wires them, serves, and takes everything down in order.

mod listener;
mod signals;
mod upkeep;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use broker::Broker;
use oauth::{AuthorizationServer, forgejo::Forgejo, ports::SystemClock, seal::KeyFile, sqlite::SqliteStore};
use session::{Registry, sqlite::SqliteRecords};
use supervisor::Supervisor;
use tokio_util::task::TaskTracker;

use crate::{
    adapters::{
        authority::OAuthAuthority,
        child::ChildSpawner,
        mcp::{RegistryService, SessionEvents},
        records::SessionSeal,
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

async fn serve(config: Config) -> Result<()> {
    let tasks = TaskTracker::new();
    let shutdown = signals::shutdown(&tasks).context("signals cannot be handled")?;

    let store = SqliteStore::open(&config.store.path).await;
    let store = store.with_context(|| format!("the store {} cannot be opened", config.store.path.display()))?;
    let sealer = KeyFile::at(&config.store.key_file).load_or_create();
    let sealer = sealer.with_context(|| format!("the key {} cannot be used", config.store.key_file.display()))?;
    let forgejo = Forgejo::new(parts::forgejo(&config)?)?;

    let events = SessionEvents::default();
    let server = AuthorizationServer::with_events(
        parts::oauth(&config),
        Arc::new(store.clone()),
        sealer.clone(),
        Arc::new(forgejo),
        Arc::new(SystemClock),
        Arc::new(events.clone()),
    )?;
    let supervisor = Arc::new(Supervisor::new(parts::supervisor(&config))?);
    let spawner = ChildSpawner::new(Arc::clone(&supervisor), parts::program(&config), parts::bridge(&config));
    let records = SqliteRecords::from_pool(store.pool().clone(), Arc::new(SessionSeal(sealer))).await?;
    let session = session::Parts {
        records: Some(Arc::new(records)),
        ..session::Parts::new(Arc::new(spawner))
    };
    let registry = Registry::open(parts::session(&config), session).await;
    let registry = Arc::new(registry.context("the sessions of before cannot be loaded")?);
    events.of(Arc::clone(&registry));
    let broker = Broker::new(
        parts::broker(&config)?,
        Arc::new(OAuthAuthority(server.clone())),
        Arc::new(RegistryService::new(registry, server.clone())),
        vec![Arc::new(StoreProbe(server.clone()))],
    );

    let listener = listener::listener(config.server.listen).await?;
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
