//! The state that the endpoints share: the settings and the services.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::rate_limits::RateLimits;
use crate::{
    access_token_cache::AccessTokenCache,
    access_tokens::AccessTokens,
    account::Accounts,
    cimd::ClientDocuments,
    code_exchanges::CodeExchanges,
    config::{Config, ConfigError, ConfigErrors, Settings},
    fetch::Fetch,
    ports::{ClientStore, Clock, GrantEvents, GrantStore, MaintenanceStore, Store, Upstream},
    revocation::Revocations,
    seal::Sealer,
};

/// The settings and the services of a server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) settings: Settings,
    pub(super) clients: Arc<dyn ClientStore>,
    pub(super) grants: Arc<dyn GrantStore>,
    pub(super) maintenance: Arc<dyn MaintenanceStore>,
    pub(super) revocations: Revocations,
    pub(super) access_tokens: AccessTokens,
    pub(super) accounts: Arc<Accounts>,
    pub(super) code_exchanges: CodeExchanges,
    pub(super) sealer: Sealer,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: Arc<dyn GrantEvents>,
    /// Owns sign-ins, renewals and revocations, which run to their end even if the request is dropped.
    pub(super) tasks: TaskTracker,
    /// The clients with a metadata document. `None`: such clients are not supported.
    pub(super) documents: Option<ClientDocuments>,
    pub(super) rate_limits: RateLimits,
}

impl ServerState {
    pub(super) fn new(
        config: Config,
        store: Arc<dyn Store>,
        sealer: Sealer,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        events: Arc<dyn GrantEvents>,
        fetch: Option<Arc<dyn Fetch>>,
    ) -> Result<Self, ConfigErrors> {
        let settings = config.into_settings()?;
        if !settings.config.allowed_orgs.is_empty() && !upstream.reads_organizations() {
            return Err(ConfigErrors(vec![ConfigError::new(
                "forgejo.allowed_orgs",
                "needs \"read:organization\" in forgejo.scopes to read memberships",
            )]));
        }
        let tasks = TaskTracker::new();
        let cache = Arc::<AccessTokenCache>::default();
        let revocations = Revocations::new(
            Arc::<dyn Store>::clone(&store),
            Arc::clone(&cache),
            Arc::clone(&events),
            tasks.clone(),
        );
        let accounts = Accounts::new(
            &store,
            revocations.clone(),
            sealer.clone(),
            Arc::clone(&upstream),
            Arc::clone(&clock),
            tasks.clone(),
            settings.config.refresh_lead,
        );
        let code_exchanges = CodeExchanges::new(
            &store,
            revocations.clone(),
            sealer.clone(),
            Arc::clone(&upstream),
            Arc::clone(&clock),
        );
        let grants: Arc<dyn GrantStore> = Arc::<dyn Store>::clone(&store);
        Ok(Self {
            clients: Arc::<dyn Store>::clone(&store),
            grants: Arc::clone(&grants),
            maintenance: store,
            access_tokens: AccessTokens::new(grants, cache, revocations.clone()),
            revocations,
            accounts: Arc::new(accounts),
            code_exchanges,
            documents: fetch.map(|fetch| ClientDocuments::new(fetch, Arc::clone(&clock))),
            rate_limits: RateLimits::new(&settings.config),
            settings,
            sealer,
            upstream,
            clock,
            events,
            tasks,
        })
    }

    /// Whether a client can be described by a document.
    pub(super) fn allows_documents(&self) -> bool {
        self.documents.is_some() && self.settings.allows_documents()
    }
}
