//! Who a client identifier stands for: a client of the configuration, one that has registered, or one that is described
//! by the document at the URL that the identifier is.

use super::ServerState;
use crate::{cimd, config::Registration, fetch::FetchError, ids::ClientId, ports::StoreError, records::ClientRecord};

/// Why it cannot be said who a client is.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The document of the client cannot be read now.
    #[error("the document of the client cannot be read now: {0}")]
    Unreachable(&'static str),
}

impl ServerState {
    /// Finds a client: those of the configuration first. `None`: there is no such client, or its document is none.
    pub(super) async fn client(&self, client_id: &ClientId) -> Result<Option<ClientRecord>, LookupError> {
        if let Some(client) = self.configured(client_id) {
            return Ok(Some(client));
        }
        if cimd::is_url(client_id) {
            return self.described(client_id).await;
        }
        Ok(self.clients.client(client_id).await?)
    }

    /// Finds a client as far as that can be done without the network: for pages that show many.
    pub(super) async fn known_client(&self, client_id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
        if let Some(client) = self.configured(client_id) {
            return Ok(Some(client));
        }
        if cimd::is_url(client_id) {
            return Ok(self.documents.as_ref().and_then(|documents| documents.known(client_id)));
        }
        self.clients.client(client_id).await
    }

    /// Whether clients may be described by documents.
    pub(super) fn reads_documents(&self) -> bool {
        self.documents.is_some() && self.settings.reads_documents()
    }

    fn configured(&self, client_id: &ClientId) -> Option<ClientRecord> {
        let configured = self.settings.clients.iter();
        configured
            .clone()
            .find(|client| client.client_id == *client_id)
            .cloned()
    }

    async fn described(&self, client_id: &ClientId) -> Result<Option<ClientRecord>, LookupError> {
        let Some(documents) = self.documents.as_ref().filter(|_| self.settings.reads_documents()) else {
            return Ok(None);
        };
        let url = match cimd::client_url(client_id) {
            Ok(url) => url,
            Err(fault) => {
                tracing::debug!(fault, "a client identifier is no URL of a document");
                return Ok(None);
            }
        };
        let host = url.host_str().unwrap_or_default();
        if self.settings.registration == Registration::AllowList && !self.settings.allow_list.allows_document(&url) {
            tracing::info!(host, "a client is described by a host that is not on the allow-list");
            return Ok(None);
        }
        match documents.client(&url).await {
            Ok(client) => Ok(Some((*client).clone())),
            Err(FetchError::Unavailable(why)) => {
                tracing::warn!(host, why, "the document of a client cannot be read now");
                Err(LookupError::Unreachable(why))
            }
            Err(FetchError::Refused(why) | FetchError::Forbidden(why)) => {
                tracing::warn!(host, why, "the document of a client is not accepted");
                Ok(None)
            }
        }
    }
}
