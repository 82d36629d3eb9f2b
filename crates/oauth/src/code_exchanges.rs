//! Code exchanges at the upstream, and their order across processes.
//!
//! Each code exchange invalidates the refresh tokens that the user had before, so that of two
//! sign-ins of one user the tokens of the later exchange must be kept. Only the answer shows who
//! the user is, and an exchange that hangs or is refused (anyone can come back with an invented
//! code) must not delay others. Exchanges therefore run side by side, up to a limit:
//!
//! 1. Take a number in the store, under which other processes see the exchange.
//! 2. Exchange the code.
//! 3. If the stored tokens are older than the number, replace them.
//! 4. Otherwise the order is unknown: renew the new tokens, since only the newest can be renewed
//!    ([`store_sign_in_tokens`](CodeExchanges::store_sign_in_tokens)).
//!
//! A refusal of stored tokens is not decided while an exchange is running, which may have
//! invalidated them.

mod placement;

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    ids::ExchangeId,
    keepalive,
    ports::{AccountStore, Clock, Store, StoreError, Upstream},
    revocation::Revocations,
    seal::Sealer,
};

/// Runs code exchanges and stores their tokens.
#[derive(Debug)]
pub(crate) struct CodeExchanges {
    store: Arc<dyn AccountStore>,
    revocations: Arc<Revocations>,
    sealer: Sealer,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
}

/// The largest number of exchanges that run at once.
const MAX_EXCHANGES: usize = 64;
/// The time after which an exchange counts as ended that its process does not extend.
const LIFETIME: Duration = Duration::from_secs(15);

impl CodeExchanges {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        revocations: Arc<Revocations>,
        sealer: Sealer,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store: Arc::<dyn Store>::clone(store),
            revocations,
            sealer,
            upstream,
            clock,
            permits: Arc::new(Semaphore::new(MAX_EXCHANGES)),
        }
    }

    /// A permit for one exchange, unless too many are running.
    pub(crate) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Runs work that begins with an exchange at the upstream and ends with its outcome in the
    /// store. Other processes see that it is running.
    pub(crate) async fn run<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(ExchangeId) -> Result<T, E>,
    ) -> Result<T, E> {
        let exchange = self.store.begin_exchange(self.clock.now() + LIFETIME).await?;
        let extend = || async {
            if let Err(error) = self.store.extend_exchange(exchange, self.clock.now() + LIFETIME).await {
                tracing::warn!(%error, "running sign-in not extended: other brokers may miss it");
            }
        };
        let outcome = keepalive::with_extended_lease(LIFETIME, work(exchange), extend).await;
        if let Err(error) = self.store.end_exchange(exchange).await {
            tracing::debug!(%error, "ended sign-in not removed from the store: it expires in a moment");
        }
        outcome
    }
}
