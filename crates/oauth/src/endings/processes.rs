//! What processes on one store hear of each other, and tell: endings above all.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{TellingStore, Told, lock};
use crate::{
    ids::{ExchangeId, LeaseOwner, PairId, UserId},
    ports::{BoxFuture, Endings, Judged, Lease, ProcessStore, StoreError},
};

/// What has been heard of endings.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Up to which of them. `None`: it has not begun.
    upto: Option<i64>,
    asked_at: Option<SystemTime>,
}

/// For how long what was heard is good enough for a bearer.
const HEARD: Duration = Duration::from_secs(1);

impl TellingStore {
    /// Hears what has ended in the store since the last time.
    pub(crate) async fn hear(&self) -> Result<(), StoreError> {
        self.told.hear().await
    }
}

impl Told {
    async fn hear(&self) -> Result<(), StoreError> {
        loop {
            let after = lock(&self.heard).upto;
            let endings = self.store.endings(after).await?;
            if endings.missed {
                // Whose sessions they served is not known any more. No bearer leads to these: they end when they idle.
                self.bearers.forget_all();
            }
            for ended in &endings.grants {
                if ended.whole {
                    self.grant_ended(&ended.grant);
                } else {
                    self.bearers.forget_grant(&ended.grant);
                }
            }
            let mut heard = lock(&self.heard);
            // Another one may have heard more meanwhile.
            heard.upto = heard.upto.max(Some(endings.upto));
            if endings.grants.is_empty() {
                return Ok(());
            }
        }
    }

    /// Hears what has ended, if it is time. One asks, and nobody waits for another who does. Without an answer of the store
    /// what is remembered stands until it is asked for again; who goes away before there is one has not asked.
    pub(super) async fn hear_in_time(&self, now: SystemTime) {
        let asked_at = lock(&self.heard).asked_at;
        if matches!(asked_at.map(|asked_at| now.duration_since(asked_at)), Some(Ok(age)) if age < HEARD) {
            return;
        }
        let Ok(_asking) = self.asking.try_lock() else {
            return;
        };
        if let Err(error) = self.hear().await {
            tracing::warn!(%error, "what has ended in other processes cannot be heard");
        }
        lock(&self.heard).asked_at = Some(now);
    }
}

impl ProcessStore for TellingStore {
    fn lease(
        &self,
        user: UserId,
        owner: LeaseOwner,
        until: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Lease, StoreError>> {
        self.told.store.lease(user, owner, until, now)
    }

    fn release(&self, user: UserId, owner: LeaseOwner) -> BoxFuture<'_, Result<(), StoreError>> {
        self.told.store.release(user, owner)
    }

    fn begin_exchange(&self, until: SystemTime) -> BoxFuture<'_, Result<ExchangeId, StoreError>> {
        self.told.store.begin_exchange(until)
    }

    fn extend_exchange(&self, exchange: ExchangeId, until: SystemTime) -> BoxFuture<'_, Result<(), StoreError>> {
        self.told.store.extend_exchange(exchange, until)
    }

    fn end_exchange(&self, exchange: ExchangeId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.told.store.end_exchange(exchange)
    }

    fn end_refused(
        &self,
        user: UserId,
        version: Option<PairId>,
        owner: LeaseOwner,
        known: Option<ExchangeId>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Judged, StoreError>> {
        self.change(async move |told: Arc<Told>| {
            let outcome = told.store.end_refused(user, version, owner, known, now).await;
            match outcome {
                Ok(Judged::Ended) => {
                    told.bearers.forget_user(user);
                    told.events.user_ended(user);
                }
                Ok(Judged::Replaced(_) | Judged::Exchanging(_) | Judged::Elsewhere) => {}
                Err(_) => told.bearers.forget_user(user),
            }
            outcome
        })
    }

    fn endings(&self, after: Option<i64>) -> BoxFuture<'_, Result<Endings, StoreError>> {
        self.told.store.endings(after)
    }
}
