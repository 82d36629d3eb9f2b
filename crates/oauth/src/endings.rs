//! The store as the rest of the crate sees it: what ends a grant there is known everywhere when the call returns.
//!
//! - Whatever can end a grant runs on a task of its own to its end: a client that hangs up during a revocation does not
//!   leave a grant that is gone from the store and still served.
//! - Once it is in the store, cached bearers are forgotten and [`GrantEvents`] are told, in this one place.
//! - Lookups of bearers go through the cache ([`AccessTokenCache`]).
//! - **What other processes have ended** is heard from the store ([`TellingStore::hear`]), by whoever comes with a bearer and
//!   has not heard for a second, and by whoever calls in between: then it is forgotten and told in the same way. So a
//!   bearer whose grant has ended in another process is honoured for a second more at most, and in this one not at all.
//!   What this process has ended itself is heard too, and told twice.
//! - That a bearer was used is noted when the store is asked for it, which is once a minute while it is in use, and written
//!   behind ([`TellingStore::record_uses`]).
//!
//! An error may hide a success, so bearers are forgotten after an error too; they are just asked for again.

mod processes;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio_util::task::TaskTracker;

use crate::{
    access_token_cache::AccessTokenCache,
    ids::{ClientId, GrantId, PairId, UserId},
    ports::{
        AccountStore, Admitted, BoxFuture, ClientStore, GrantEvents, GrantStore, NewTokens, Placed, SignIn, SignedIn,
        SignedInPair, Spent, Store, StoreError, Taken,
    },
    records::{
        AccountRecord, BearerRecord, ClientRecord, CodeRecord, GrantRecord, GrantSummary, PendingRecord, TokenHash,
    },
};

use processes::Heard;

/// A store that tells of endings.
#[derive(Debug)]
pub(crate) struct TellingStore {
    told: Arc<Told>,
    tasks: TaskTracker,
}

/// What a change works on.
#[derive(Debug)]
struct Told {
    store: Arc<dyn Store>,
    bearers: AccessTokenCache,
    events: Arc<dyn GrantEvents>,
    heard: Mutex<Heard>,
    /// Held by the one who asks the store what has ended because a bearer has come.
    asking: tokio::sync::Mutex<()>,
    /// When grants were used last, since it was written down. Bounded by [`USES`].
    uses: Mutex<HashMap<GrantId, SystemTime>>,
}

/// Uses that are being written down. What is left of them when it is dropped goes back.
struct TakenUses<'a> {
    told: &'a Told,
    uses: HashMap<GrantId, SystemTime>,
}

/// How many uses are kept to be written down. Of further grants the next use is noted.
const USES: usize = 16_384;

impl TellingStore {
    /// `tasks` owns the changes under way.
    pub(crate) fn new(store: Arc<dyn Store>, events: Arc<dyn GrantEvents>, tasks: TaskTracker) -> Self {
        let told = Told {
            store,
            bearers: AccessTokenCache::default(),
            events,
            heard: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            uses: Mutex::default(),
        };
        Self {
            told: Arc::new(told),
            tasks,
        }
    }

    /// Writes down which grants have been used since the last time.
    ///
    /// Cancel safe: what has not been written is written the next time.
    pub(crate) async fn record_uses(&self) -> Result<(), StoreError> {
        let mut taken = TakenUses {
            told: &self.told,
            uses: std::mem::take(&mut *lock(&self.told.uses)),
        };
        if taken.uses.is_empty() {
            return Ok(());
        }
        let uses = taken.uses.iter().map(|(grant, at)| (grant.clone(), *at)).collect();
        self.told.store.record_uses(uses).await?;
        taken.uses.clear();
        Ok(())
    }

    /// Runs a change to its end, whoever waits for it.
    fn change<T, F>(&self, change: impl FnOnce(Arc<Told>) -> F + Send + 'static) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        Box::pin(async move {
            let task = self.tasks.spawn(change(Arc::clone(&self.told)));
            task.await
                .unwrap_or_else(|error| Err(StoreError::Unavailable(Box::new(error))))
        })
    }
}

impl Told {
    fn used(&self, grant: &GrantId, now: SystemTime) {
        let mut uses = lock(&self.uses);
        if uses.len() < USES || uses.contains_key(grant) {
            uses.insert(grant.clone(), now);
        }
    }

    fn grant_ended(&self, grant: &GrantId) {
        self.bearers.forget_grant(grant);
        self.events.grant_ended(grant);
    }

    /// A code or a refresh token has been spent. That ends its grant if it was used before, and else perhaps the oldest
    /// access tokens of the grant.
    fn spent(&self, outcome: Result<Spent, StoreError>) -> Result<Spent, StoreError> {
        match &outcome {
            Ok(Spent::Reused(grant)) => self.grant_ended(grant),
            Ok(Spent::Replayed(grant)) => self.bearers.forget_grant(grant),
            Ok(Spent::Issued(grant)) => self.bearers.forget_grant(&grant.id),
            Ok(Spent::Gone) => {}
            Err(_) => self.bearers.forget_all(),
        }
        outcome
    }
}

impl Drop for TakenUses<'_> {
    fn drop(&mut self) {
        let mut uses = lock(&self.told.uses);
        for (grant, at) in self.uses.drain() {
            if uses.len() < USES || uses.contains_key(&grant) {
                let used = uses.entry(grant).or_insert(at);
                *used = at.max(*used);
            }
        }
    }
}

impl ClientStore for TellingStore {
    fn insert_client(
        &self,
        client: ClientRecord,
        cap: u32,
        unused_since: SystemTime,
    ) -> BoxFuture<'_, Result<Admitted, StoreError>> {
        self.told.store.insert_client(client, cap, unused_since)
    }

    fn update_client(&self, client: ClientRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.told.store.update_client(client)
    }

    fn delete_client<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<Vec<GrantId>, StoreError>> {
        let client_id = client_id.clone();
        self.change(async move |told: Arc<Told>| {
            let outcome = told.store.delete_client(&client_id).await;
            told.bearers.forget_client(&client_id);
            for grant in outcome.iter().flatten() {
                told.grant_ended(grant);
            }
            outcome
        })
    }

    fn use_assertion(
        &self,
        assertion: TokenHash,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.told.store.use_assertion(assertion, expires_at, now)
    }

    fn client_like(&self, fingerprint: TokenHash) -> BoxFuture<'_, Result<Option<ClientRecord>, StoreError>> {
        self.told.store.client_like(fingerprint)
    }

    fn client<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<Option<ClientRecord>, StoreError>> {
        self.told.store.client(client_id)
    }
}

impl GrantStore for TellingStore {
    fn insert_pending(
        &self,
        pending: PendingRecord,
        cap: u32,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.told.store.insert_pending(pending, cap, now)
    }

    fn take_pending(
        &self,
        state: TokenHash,
        browser: TokenHash,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Taken, StoreError>> {
        self.told.store.take_pending(state, browser, now)
    }

    fn complete_sign_in(
        &self,
        sign_in: SignIn,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Option<SignedIn>, StoreError>> {
        self.change(async move |told: Arc<Told>| {
            let user = sign_in.grant.user;
            let outcome = told.store.complete_sign_in(sign_in, now).await;
            // A grant that goes on may have changed.
            told.bearers.forget_user(user);
            for grant in outcome.iter().flatten().flat_map(|signed_in| &signed_in.displaced) {
                told.grant_ended(grant);
            }
            if matches!(outcome, Ok(Some(_))) {
                told.events.user_signed_in(user);
            }
            outcome
        })
    }

    fn code(&self, code: TokenHash) -> BoxFuture<'_, Result<Option<CodeRecord>, StoreError>> {
        self.told.store.code(code)
    }

    fn spend_code(
        &self,
        code: TokenHash,
        tokens: NewTokens,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Spent, StoreError>> {
        self.change(async move |told: Arc<Told>| {
            let outcome = told.store.spend_code(code, tokens, now).await;
            told.spent(outcome)
        })
    }

    fn spend_refresh(
        &self,
        refresh: TokenHash,
        tokens: NewTokens,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Spent, StoreError>> {
        self.change(async move |told: Arc<Told>| {
            let outcome = told.store.spend_refresh(refresh, tokens, now).await;
            told.spent(outcome)
        })
    }

    fn bearer(&self, access: TokenHash, now: SystemTime) -> BoxFuture<'_, Result<Option<BearerRecord>, StoreError>> {
        Box::pin(async move {
            self.told.hear_in_time(now).await;
            let bearers = &self.told.bearers;
            let asked_in = match bearers.find(access, now) {
                Ok(record) => return Ok(Some(record)),
                Err(epoch) => epoch,
            };
            let found = self.told.store.bearer(access, now).await?;
            if let Some(record) = &found {
                self.told.used(&record.grant.id, now);
                bearers.keep(asked_in, access, record.clone(), now);
            }
            Ok(found)
        })
    }

    fn record_uses(&self, uses: Vec<(GrantId, SystemTime)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.told.store.record_uses(uses)
    }

    fn grant_of(&self, token: TokenHash) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        self.told.store.grant_of(token)
    }

    fn grants_of(&self, user: UserId) -> BoxFuture<'_, Result<Vec<GrantSummary>, StoreError>> {
        self.told.store.grants_of(user)
    }

    fn end_grant<'a>(&'a self, grant: &'a GrantId) -> BoxFuture<'a, Result<(), StoreError>> {
        let grant = grant.clone();
        self.change(async move |told: Arc<Told>| {
            let outcome = told.store.end_grant(&grant).await;
            told.bearers.forget_grant(&grant);
            if outcome.is_ok() {
                told.events.grant_ended(&grant);
            }
            outcome
        })
    }

    fn end_user(&self, user: UserId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.change(async move |told: Arc<Told>| {
            let outcome = told.store.end_user(user).await;
            told.bearers.forget_user(user);
            if outcome.is_ok() {
                told.events.user_ended(user);
            }
            outcome
        })
    }
}

impl AccountStore for TellingStore {
    fn account_users(&self) -> BoxFuture<'_, Result<Vec<UserId>, StoreError>> {
        self.told.store.account_users()
    }

    fn account(&self, user: UserId) -> BoxFuture<'_, Result<Option<AccountRecord>, StoreError>> {
        self.told.store.account(user)
    }

    fn replace_account(&self, account: AccountRecord, version: PairId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.told.store.replace_account(account, version)
    }

    fn place_account(&self, pair: SignedInPair) -> BoxFuture<'_, Result<Placed, StoreError>> {
        self.told.store.place_account(pair)
    }
}

impl Store for TellingStore {
    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.told.store.probe()
    }

    fn purge(&self, now: SystemTime) -> BoxFuture<'_, Result<(), StoreError>> {
        // It ends only grants that no token leads to any more.
        self.told.store.purge(now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
