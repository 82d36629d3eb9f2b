//! Lookup of a client by its identifier: a client of the configuration, a registered one, or one
//! that is described by the document at the URL that is its identifier.

use super::{oauth_error::OAuthError, pages::ErrorPage, state::ServerState};
use crate::{
    cimd, client_name::clean_name, config::Registration, fetch::FetchError, ids::ClientId, ports::StoreError,
    records::ClientRecord, redirect_uri,
};

/// The reason why a lookup has no answer.
#[derive(Debug)]
pub(super) enum LookupError {
    /// The store failed.
    Store(StoreError),
    /// The document of the client cannot be read now.
    Unavailable,
    /// The identifier is a URL, and no client may be described by a document here.
    DocumentsNotAccepted,
    /// The operator has blocked the client.
    Blocked,
}

impl From<LookupError> for OAuthError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Store(error) => error.into(),
            LookupError::Unavailable => Self::ClientUnavailable,
            LookupError::DocumentsNotAccepted => Self::DocumentsNotAccepted,
            LookupError::Blocked => Self::ClientBlocked,
        }
    }
}

impl From<LookupError> for ErrorPage {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Store(error) => error.into(),
            // Client ID metadata document draft, section 4.3.
            LookupError::Unavailable => Self::ClientUnavailable,
            LookupError::DocumentsNotAccepted => Self::DocumentsNotAccepted,
            LookupError::Blocked => Self::ClientBlocked,
        }
    }
}

/// Finds a client. `None`: there is no such client, or its document is refused.
pub(super) async fn find(state: &ServerState, client_id: &ClientId) -> Result<Option<ClientRecord>, LookupError> {
    let block_list = &state.settings.block_list;
    // Before its document is fetched.
    let is_blocked = block_list.blocks_id(client_id);
    let client = if is_blocked {
        None
    } else {
        find_any(state, client_id).await?
    };
    if is_blocked || client.as_ref().is_some_and(|client| block_list.blocks(client)) {
        tracing::info!("client refused: it is on oauth.blocked_clients");
        return Err(LookupError::Blocked);
    }
    Ok(client)
}

async fn find_any(state: &ServerState, client_id: &ClientId) -> Result<Option<ClientRecord>, LookupError> {
    if let Some(client) = configured(state, client_id) {
        return Ok(Some(client));
    }
    if cimd::is_url(&client_id.0) {
        return described(state, client_id).await;
    }
    registered(state, client_id).await.map_err(LookupError::Store)
}

/// Finds a client without a network request, for pages that show many.
pub(super) async fn find_cached(state: &ServerState, client_id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
    if let Some(client) = configured(state, client_id) {
        return Ok(Some(client));
    }
    if cimd::is_url(&client_id.0) {
        let documents = state.documents.as_ref();
        return Ok(documents.and_then(|documents| documents.cached_client(&client_id.0)));
    }
    registered(state, client_id).await
}

/// Finds a registered client. Its name and its redirect URIs are what the present rules leave of
/// them, whenever they were registered.
pub(super) async fn registered(state: &ServerState, client_id: &ClientId) -> Result<Option<ClientRecord>, StoreError> {
    let mut client = state.clients.client(client_id).await?;
    if let Some(client) = &mut client {
        client.name = client.name.as_deref().and_then(clean_name);
        client.redirect_uris.retain(|uri| redirect_uri::check(uri).is_ok());
    }
    Ok(client)
}

fn configured(state: &ServerState, client_id: &ClientId) -> Option<ClientRecord> {
    let mut clients = state.settings.clients.iter();
    clients.find(|client| client.client_id == *client_id).cloned()
}

async fn described(state: &ServerState, client_id: &ClientId) -> Result<Option<ClientRecord>, LookupError> {
    let settings = &state.settings;
    let Some(documents) = state.documents.as_ref().filter(|_| settings.allows_documents()) else {
        return Err(LookupError::DocumentsNotAccepted);
    };
    let url = match cimd::client_url(&client_id.0) {
        Ok(url) => url,
        Err(reason) => {
            tracing::debug!(reason, "client refused: its identifier is not a document URL");
            return Ok(None);
        }
    };
    let host = url.host_str().unwrap_or_default();
    if settings.config.registration == Registration::AllowList && !settings.allow_list.allows_document(&url) {
        tracing::info!(host, "client refused: its host is not on oauth.allowed_client_domains");
        return Ok(None);
    }
    match documents.client(client_id, &url).await {
        Ok(client) => Ok(Some((*client).clone())),
        Err(FetchError::Unavailable(reason)) => {
            tracing::warn!(host, reason, "client refused for now: its document cannot be read");
            Err(LookupError::Unavailable)
        }
        Err(FetchError::Refused(reason) | FetchError::Forbidden(reason)) => {
            tracing::warn!(host, reason, "client refused: its document is not acceptable");
            Ok(None)
        }
    }
}
