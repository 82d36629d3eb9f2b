//! Builds the parts of the broker and wires them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use broker::Broker;
use oauth::{
    AuthorizationServer,
    forgejo::Forgejo,
    ports::SystemClock,
    sqlite::{SqliteStore, WriteProbe},
};
use session::{RegistryBuilder, sqlite::SqliteRecords};

use super::{backends::Backends, fetcher, sealing_key, test_token_grace};
use crate::{
    adapters::{
        authority::OAuthAuthority,
        grant_events::SessionEvents,
        mcp::RegistryService,
        metrics::{Counts, MetricsPage},
        records::SessionSeal,
        request_states::RequestStateSeal,
        store::StoreProbe,
    },
    config::{Config, crate_configs},
};

/// The parts that serving needs; the broker holds the others.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) store: SqliteStore,
    pub(super) server: AuthorizationServer,
    pub(super) backends: Backends,
    pub(super) broker: Broker,
}

impl Application {
    pub(super) async fn build(config: &Config, store: SqliteStore) -> Result<Self> {
        let sealer = sealing_key::sealer(&config.store, &store).await?;
        let events = SessionEvents::default();
        let server = AuthorizationServer::new(
            test_token_grace::apply(crate_configs::oauth(config))?,
            Arc::new(store.clone()),
            sealer.clone(),
            Arc::new(Forgejo::new(crate_configs::forgejo(config))?),
            Arc::new(SystemClock),
            Arc::new(events.clone()),
            Some(fetcher::fetcher()?),
        )?;
        server.check_keys().await?;
        let resealed = server.reseal_accounts().await;
        let resealed = resealed.context("cannot seal the accounts with the newest key")?;
        if resealed > 0 {
            tracing::info!(accounts = resealed, "accounts sealed with the newest key");
        }

        let counts = Arc::new(Counts::default());
        let bridge = bridge::Config {
            drop_counts: counts.drop_counts(),
            era_counts: counts.era_counts(),
            state_sealer: Some(Arc::new(RequestStateSeal(sealer.clone()))),
            ..crate_configs::bridge(config)
        };
        let backends = Backends::new(config, bridge)?;
        let (writer, readers) = (store.writer().clone(), store.readers().clone());
        let mut records = SqliteRecords::from_pools(writer, readers, Arc::new(SessionSeal(sealer))).await?;
        if store.found_others() {
            records = records.shared_with_other_processes();
        }
        let registry = RegistryBuilder::hosted(crate_configs::session(config), Arc::clone(&backends.host))
            .records(Arc::new(records))
            .observer(Arc::<Counts>::clone(&counts))
            .open()
            .await;
        let registry = Arc::new(registry.context("loading persisted sessions failed")?);
        events.set_registry(Arc::clone(&registry));
        // Now that the sessions of an ended grant can end, too.
        let ended = server.end_blocked_clients().await;
        ended.context("cannot end the grants of blocked clients")?;

        let metrics = MetricsPage::new(counts, Arc::clone(&registry), backends.supervisor.clone());
        let path = &config.store.path;
        let probe = WriteProbe::new(store.clone(), path);
        let probe = probe.with_context(|| format!("cannot find the store {}", path.display()))?;
        let mut probes = backends.probes(config);
        probes.push(Arc::new(StoreProbe(probe)));
        let mut broker = Broker::new(
            crate_configs::broker(config)?,
            Arc::new(OAuthAuthority::new(server.clone())),
            Arc::new(RegistryService::new(registry, server.clone())),
        )
        .with_readiness_probes(probes);
        if config.metrics.enabled {
            broker = broker.with_metrics(Arc::new(metrics), config.metrics.token.clone());
        }
        Ok(Self {
            store,
            server,
            backends,
            broker,
        })
    }
}
