//! The end of the grants of blocked clients, at the start of the program.

use super::{client_lookup, state::ServerState};
use crate::{ids::ClientId, ports::StoreError};

/// Ends the grants of blocked clients, and returns their number. A client with a document is
/// blocked here by its identifier and host; its redirect URIs are checked when it is looked up.
pub(super) async fn end_grants(state: &ServerState) -> Result<usize, StoreError> {
    let block_list = &state.settings.block_list;
    if block_list.is_empty() {
        return Ok(0);
    }
    let mut ended = 0;
    for client_id in state.grants.clients_with_grants().await? {
        if is_blocked(state, &client_id).await? {
            let grants = state.grants.grants_of_client(&client_id).await?;
            tracing::warn!(
                client = client_id.0,
                grants = grants.len(),
                "grants of a blocked client ended"
            );
            for grant in grants {
                state.revocations.end_grant(grant).await?;
                ended += 1;
            }
        }
    }
    Ok(ended)
}

async fn is_blocked(state: &ServerState, client_id: &ClientId) -> Result<bool, StoreError> {
    let block_list = &state.settings.block_list;
    if block_list.blocks_id(client_id) {
        return Ok(true);
    }
    let client = client_lookup::find_cached(state, client_id).await?;
    Ok(client.is_some_and(|client| block_list.blocks(&client)))
}
