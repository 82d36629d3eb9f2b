//! The state that the endpoints share: the settings and the services.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::rate_limits::RateLimits;
use crate::{
    access_tokens::AccessTokens,
    account::Accounts,
    allowed_users::AllowedUsers,
    cimd::ClientDocuments,
    code_exchanges::CodeExchanges,
    config::Settings,
    ports::{ClientStore, Clock, GrantEvents, GrantStore, Store, Upstream},
    revocation::Revocations,
    seal::Sealer,
};

/// The settings and the services of a server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) settings: Arc<Settings>,
    pub(super) allowed_users: AllowedUsers,
    pub(super) clients: Arc<dyn ClientStore>,
    pub(super) grants: Arc<dyn GrantStore>,
    pub(super) store: Arc<dyn Store>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) access_tokens: AccessTokens,
    pub(super) accounts: Arc<Accounts>,
    pub(super) code_exchanges: CodeExchanges,
    pub(super) sealer: Sealer,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: Arc<dyn GrantEvents>,
    /// Owns sign-ins, renewals and revocations, which run to their end even if the request is
    /// dropped.
    pub(super) tasks: TaskTracker,
    /// The clients with a metadata document. `None`: such clients are not supported.
    pub(super) documents: Option<ClientDocuments>,
    pub(super) rate_limits: RateLimits,
}

impl ServerState {
    /// Returns whether a client can be described by a document.
    pub(super) fn allows_documents(&self) -> bool {
        self.documents.is_some() && self.settings.allows_documents()
    }
}
