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
    revocations: Revocations,
    /// The last uses that have not been written. Bounded by [`MAX_USES`].
    uses: Mutex<HashMap<GrantId, SystemTime>>,
}

/// Uses that are being written. Dropping it returns unwritten uses to the collection.
struct UnwrittenUses<'a> {
    tokens: &'a AccessTokens,
    uses: HashMap<GrantId, SystemTime>,
}

/// The largest number of grants whose use waits to be written. A further grant is counted at its
/// next use.
const MAX_USES: usize = 16_384;

impl AccessTokens {
    pub(crate) fn new(store: Arc<dyn GrantStore>, cache: Arc<AccessTokenCache>, revocations: Revocations) -> Self {
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
            add_use(&mut self.uses(), record.grant.id.clone(), now);
            self.cache.insert(generation, token, record.clone(), now);
        }
        Ok(found)
    }

    /// Writes the uses of grants since the last call.
    ///
    /// Cancel safe: uses that have not been written are written by the next call.
    pub(crate) async fn record_uses(&self) -> Result<(), StoreError> {
        let mut unwritten = UnwrittenUses {
            tokens: self,
            uses: std::mem::take(&mut *self.uses()),
        };
        if unwritten.uses.is_empty() {
            return Ok(());
        }
        let uses = unwritten.uses.iter().map(|(grant, at)| (grant.clone(), *at)).collect();
        self.store.record_uses(uses).await?;
        unwritten.uses.clear();
        Ok(())
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<GrantId, SystemTime>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnwrittenUses<'_> {
    fn drop(&mut self) {
        let mut uses = self.tokens.uses();
        for (grant, at) in self.uses.drain() {
            add_use(&mut uses, grant, at);
        }
    }
}

/// Keeps the latest use of a grant.
fn add_use(uses: &mut HashMap<GrantId, SystemTime>, grant: GrantId, at: SystemTime) {
    if uses.len() < MAX_USES || uses.contains_key(&grant) {
        let last = uses.entry(grant).or_insert(at);
        *last = at.max(*last);
    }
}
