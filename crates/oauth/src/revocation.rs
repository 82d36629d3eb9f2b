//! Changes that can end access: they run to their end, and are reported to everything that depends
//! on the access.
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
//! [`RevocationStore`] is used only through this module.

mod poll;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tokio_util::task::TaskTracker;

use crate::{
    access_token_cache::AccessTokenCache,
    ids::{ClientId, GrantId, UserId},
    ports::{
        GrantEvents, NewTokens, PresentedToken, Redemption, RefusalOutcome, RefusedTokens, Revocation, RevocationStore,
        SignIn, SignedIn, StoreError,
    },
    records::TokenHash,
};

use poll::LogPosition;

/// Makes and reports changes that can end access.
#[derive(Debug)]
pub(crate) struct Revocations {
    store: Arc<dyn RevocationStore>,
    cache: Arc<AccessTokenCache>,
    events: Arc<dyn GrantEvents>,
    /// Owns the changes under way.
    tasks: TaskTracker,
    position: Mutex<LogPosition>,
    /// Held by the request that polls the log.
    polling: tokio::sync::Mutex<()>,
}

impl Revocations {
    pub(crate) fn new(
        store: Arc<dyn RevocationStore>,
        cache: Arc<AccessTokenCache>,
        events: Arc<dyn GrantEvents>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            cache,
            events,
            tasks,
            position: Mutex::default(),
            polling: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) async fn complete_sign_in(
        self: &Arc<Self>,
        sign_in: SignIn,
        now: SystemTime,
    ) -> Result<Option<SignedIn>, StoreError> {
        self.run(async move |this| {
            let user = sign_in.code.grant.user;
            let outcome = this.store.complete_sign_in(sign_in, now).await;
            // A grant that goes on may have changed.
            this.cache.forget_user(user);
            for grant in outcome.iter().flatten().flat_map(|signed_in| &signed_in.displaced) {
                this.grant_ended(grant);
            }
            if matches!(outcome, Ok(Some(_))) {
                this.events.user_signed_in(user);
            }
            outcome
        })
        .await
    }

    /// A redemption ends the grant or a family if it is a reuse, and otherwise may displace the
    /// oldest access tokens of the grant.
    pub(crate) async fn redeem(
        self: &Arc<Self>,
        presented: PresentedToken,
        tokens: NewTokens,
        now: SystemTime,
    ) -> Result<Redemption, StoreError> {
        self.run(async move |this| {
            let outcome = this.store.redeem(presented, tokens, now).await;
            match &outcome {
                Ok(Redemption::GrantRevoked(grant)) => this.grant_ended(grant),
                Ok(Redemption::FamilyRevoked(grant)) => this.cache.forget_grant(grant),
                Ok(Redemption::Issued(grant) | Redemption::Reissued(grant)) => this.cache.forget_grant(&grant.id),
                Ok(Redemption::Invalid) => {}
                Err(_) => this.cache.forget_all(),
            }
            outcome
        })
        .await
    }

    /// Ends the sign-in of a token. Returns whether it was the last of its grant.
    pub(crate) async fn end_family(self: &Arc<Self>, token: TokenHash) -> Result<Option<Revocation>, StoreError> {
        self.run(async move |this| {
            let outcome = this.store.end_family(token).await;
            match &outcome {
                Ok(Some(ended)) if ended.whole_grant => this.grant_ended(&ended.grant),
                Ok(Some(ended)) => this.cache.forget_grant(&ended.grant),
                Ok(None) => {}
                Err(_) => this.cache.forget_all(),
            }
            outcome
        })
        .await
    }

    pub(crate) async fn delete_client(self: &Arc<Self>, client_id: ClientId) -> Result<(), StoreError> {
        self.run(async move |this| {
            let outcome = this.store.delete_client(&client_id).await;
            this.cache.forget_client(&client_id);
            for grant in outcome.iter().flatten() {
                this.grant_ended(grant);
            }
            outcome.map(drop)
        })
        .await
    }

    /// Notes the login that a user has now. Access goes by the user's id; the allow-list of users
    /// and the pages go by the login.
    pub(crate) async fn note_login(self: &Arc<Self>, user: UserId, login: String) -> Result<(), StoreError> {
        self.run(async move |this| {
            let changed = this.store.set_login(user, &login).await?;
            if changed {
                tracing::info!(user = user.0, login, "user has another login at Forgejo");
                this.cache.forget_user(user);
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn end_grant(self: &Arc<Self>, grant: GrantId) -> Result<(), StoreError> {
        self.run(async move |this| {
            let outcome = this.store.end_grant(&grant).await;
            this.cache.forget_grant(&grant);
            outcome.inspect(|()| this.events.grant_ended(&grant))
        })
        .await
    }

    pub(crate) async fn end_user(self: &Arc<Self>, user: UserId) -> Result<(), StoreError> {
        self.run(async move |this| {
            let outcome = this.store.end_user(user).await;
            this.cache.forget_user(user);
            outcome.inspect(|()| this.events.user_ended(user))
        })
        .await
    }

    pub(crate) async fn end_refused_user(
        self: &Arc<Self>,
        refused: RefusedTokens,
        now: SystemTime,
    ) -> Result<RefusalOutcome, StoreError> {
        self.run(async move |this| {
            let outcome = this.store.end_refused_user(refused, now).await;
            if matches!(outcome, Ok(RefusalOutcome::Revoked) | Err(_)) {
                this.cache.forget_user(refused.user);
            }
            if matches!(outcome, Ok(RefusalOutcome::Revoked)) {
                this.events.user_ended(refused.user);
            }
            outcome
        })
        .await
    }

    /// Runs a change to its end, even if the caller goes away.
    async fn run<T, F>(self: &Arc<Self>, change: impl FnOnce(Arc<Self>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let task = self.tasks.spawn(change(Arc::clone(self)));
        task.await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(Box::new(error))))
    }

    fn grant_ended(&self, grant: &GrantId) {
        self.cache.forget_grant(grant);
        self.events.grant_ended(grant);
    }
}
