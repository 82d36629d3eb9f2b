//! Changes that can end access: they run to their end, and everything that depends on the access
//! hears of it.
//!
//! - Each change runs on a task of its own: a client that hangs up during a revocation leaves no
//!   grant that is gone from the store and still served.
//! - Once the change is in the store, the cache of access tokens drops what has ended, and
//!   [`GrantEvents`] are called.
//! - Revocations of other processes come from the log in the store: see
//!   [`poll`](Revocations::poll).
//!
//! An error may hide a success, so the cache drops its entries after an error too; they are just
//! looked up again.
//!
//! [`RevocationStore`] is reachable only through this module.

mod poll;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tokio_util::task::TaskTracker;

use crate::{
    access_token_cache::AccessTokenCache,
    ids::{ClientId, ExchangeId, GrantId, LeaseOwner, TokenVersion, UserId},
    ports::{GrantEvents, NewTokens, Redemption, RefusalOutcome, RevocationStore, SignIn, SignedIn, StoreError},
    records::TokenHash,
};

use poll::LogPosition;

/// Makes and reports changes that can end access. Clones are the same service.
#[derive(Clone, Debug)]
pub(crate) struct Revocations {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn RevocationStore>,
    cache: Arc<AccessTokenCache>,
    events: Arc<dyn GrantEvents>,
    position: Mutex<LogPosition>,
    /// Held by the request that polls the log.
    polling: tokio::sync::Mutex<()>,
}

impl Revocations {
    /// `tasks` owns the changes under way.
    pub(crate) fn new(
        store: Arc<dyn RevocationStore>,
        cache: Arc<AccessTokenCache>,
        events: Arc<dyn GrantEvents>,
        tasks: TaskTracker,
    ) -> Self {
        let inner = Inner {
            store,
            cache,
            events,
            position: Mutex::default(),
            polling: tokio::sync::Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
            tasks,
        }
    }

    pub(crate) async fn complete_sign_in(
        &self,
        sign_in: SignIn,
        now: SystemTime,
    ) -> Result<Option<SignedIn>, StoreError> {
        self.run(async move |inner| {
            let user = sign_in.grant.user;
            let outcome = inner.store.complete_sign_in(sign_in, now).await;
            // A grant that goes on may have changed.
            inner.cache.forget_user(user);
            for grant in outcome.iter().flatten().flat_map(|signed_in| &signed_in.displaced) {
                inner.grant_ended(grant);
            }
            if matches!(outcome, Ok(Some(_))) {
                inner.events.user_signed_in(user);
            }
            outcome
        })
        .await
    }

    pub(crate) async fn redeem_code(
        &self,
        code: TokenHash,
        tokens: NewTokens,
        now: SystemTime,
    ) -> Result<Redemption, StoreError> {
        self.run(async move |inner| inner.redeemed(inner.store.redeem_code(code, tokens, now).await))
            .await
    }

    pub(crate) async fn redeem_refresh_token(
        &self,
        token: TokenHash,
        tokens: NewTokens,
        now: SystemTime,
    ) -> Result<Redemption, StoreError> {
        self.run(async move |inner| inner.redeemed(inner.store.redeem_refresh_token(token, tokens, now).await))
            .await
    }

    pub(crate) async fn delete_client(&self, client_id: ClientId) -> Result<(), StoreError> {
        self.run(async move |inner| {
            let outcome = inner.store.delete_client(&client_id).await;
            inner.cache.forget_client(&client_id);
            for grant in outcome.iter().flatten() {
                inner.grant_ended(grant);
            }
            outcome.map(drop)
        })
        .await
    }

    pub(crate) async fn end_grant(&self, grant: GrantId) -> Result<(), StoreError> {
        self.run(async move |inner| {
            let outcome = inner.store.end_grant(&grant).await;
            inner.cache.forget_grant(&grant);
            if outcome.is_ok() {
                inner.events.grant_ended(&grant);
            }
            outcome
        })
        .await
    }

    pub(crate) async fn end_user(&self, user: UserId) -> Result<(), StoreError> {
        self.run(async move |inner| {
            let outcome = inner.store.end_user(user).await;
            inner.cache.forget_user(user);
            if outcome.is_ok() {
                inner.events.user_ended(user);
            }
            outcome
        })
        .await
    }

    pub(crate) async fn end_refused_user(
        &self,
        user: UserId,
        version: Option<TokenVersion>,
        owner: LeaseOwner,
        newest: Option<ExchangeId>,
        now: SystemTime,
    ) -> Result<RefusalOutcome, StoreError> {
        self.run(async move |inner| {
            let outcome = inner.store.end_refused_user(user, version, owner, newest, now).await;
            if matches!(outcome, Ok(RefusalOutcome::Revoked) | Err(_)) {
                inner.cache.forget_user(user);
            }
            if matches!(outcome, Ok(RefusalOutcome::Revoked)) {
                inner.events.user_ended(user);
            }
            outcome
        })
        .await
    }

    /// Runs a change to its end, even if the caller goes away.
    async fn run<T, F>(&self, change: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let task = self.tasks.spawn(change(Arc::clone(&self.inner)));
        task.await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(Box::new(error))))
    }
}

impl Inner {
    fn grant_ended(&self, grant: &GrantId) {
        self.cache.forget_grant(grant);
        self.events.grant_ended(grant);
    }

    /// A redemption ends the grant or a family if it was a reuse, and otherwise may displace the
    /// oldest access tokens of the grant.
    fn redeemed(&self, outcome: Result<Redemption, StoreError>) -> Result<Redemption, StoreError> {
        match &outcome {
            Ok(Redemption::GrantRevoked(grant)) => self.grant_ended(grant),
            Ok(Redemption::FamilyRevoked(grant)) => self.cache.forget_grant(grant),
            Ok(Redemption::Issued(grant)) => self.cache.forget_grant(&grant.id),
            Ok(Redemption::Invalid) => {}
            Err(_) => self.cache.forget_all(),
        }
        outcome
    }
}
