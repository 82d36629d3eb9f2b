//! Lookup of access tokens: in the cache, else in the store, after the revocations of other
//! processes.
//!
//! A lookup that reaches the store, as one does each minute while a token is in use, counts as a
//! use of the grant. Uses are collected here and written by the maintenance task
//! ([`AccessTokens::record_uses`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::{
    access_token_cache::AccessTokenCache,
    ids::GrantId,
    ports::{GrantStore, StoreError},
    records::{AccessTokenRecord, TokenHash},
    revocation::Revocations,
};

/// Looks up access tokens.
#[derive(Debug)]
pub(crate) struct AccessTokens {
    store: Arc<dyn GrantStore>,
    cache: Arc<AccessTokenCache>,
    revocations: Arc<Revocations>,
    /// The last uses that have not been written. Bounded by [`MAX_USES`].
    uses: Mutex<HashMap<GrantId, SystemTime>>,
}

/// The largest number of grants whose use waits to be written. A further grant is counted at its
/// next use.
const MAX_USES: usize = 16_384;

impl AccessTokens {
    pub(crate) fn new(store: Arc<dyn GrantStore>, cache: Arc<AccessTokenCache>, revocations: Arc<Revocations>) -> Self {
        Self {
            store,
            cache,
            revocations,
            uses: Mutex::default(),
        }
    }

    /// Finds an access token that has not expired, with its grant.
    pub(crate) async fn find(
        &self,
        token: TokenHash,
        now: SystemTime,
    ) -> Result<Option<AccessTokenRecord>, StoreError> {
        self.revocations.poll_if_due(now).await;
        let generation = match self.cache.get(token, now) {
            Ok(record) => return Ok(Some(record)),
            Err(generation) => generation,
        };
        let found = self.store.access_token(token, now).await?;
        if let Some(record) = &found {
            self.add_use(&record.grant.id, now);
            self.cache.insert(generation, token, record.clone(), now);
        }
        Ok(found)
    }

    /// Writes the uses of grants since the last call.
    ///
    /// Cancel safe: uses that have not been written are written by the next call.
    pub(crate) async fn record_uses(&self) -> Result<(), StoreError> {
        let uses = self.uses().clone();
        if !uses.is_empty() {
            self.store.record_uses(uses.clone().into_iter().collect()).await?;
            self.uses().retain(|grant, at| uses.get(grant) != Some(at));
        }
        Ok(())
    }

    /// Keeps the latest use of a grant.
    fn add_use(&self, grant: &GrantId, at: SystemTime) {
        let mut uses = self.uses();
        if uses.len() < MAX_USES || uses.contains_key(grant) {
            let last = uses.entry(grant.clone()).or_insert(at);
            *last = at.max(*last);
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<GrantId, SystemTime>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
