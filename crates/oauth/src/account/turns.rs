//! The order of sign-ins, across processes.
//!
//! Each code exchange kills the refresh tokens that the user had before, so that of two sign-ins of one user the pair of
//! the later exchange must be kept. Whose a sign-in is shows only after the exchange, and one that hangs or is refused
//! (anybody can come back with a code that is made up) must not keep others waiting. So exchanges run side by side, a
//! bounded number of them, and each has a number in the store from before it begins. A pair that was put into the store
//! before that is older. Where a sign-in has put one there since, the order is not known, and whoever comes second finds
//! out by renewing its own pair: the upstream renews only the living one.
//!
//! While an exchange is under way no refusal is judged: it may have killed the pair that was refused.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Accounts;
use crate::{ids::ExchangeId, ports::StoreError};

/// How many sign-ins of this process are talking to the upstream.
#[derive(Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

/// Leave to begin a sign-in, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held for its end")] OwnedSemaphorePermit);

/// How many sign-ins may be talking to the upstream.
const SLOTS: usize = 64;
/// How long an exchange counts as under way when its process says nothing more.
const LIFE: Duration = Duration::from_secs(15);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SLOTS)))
    }
}

impl Turns {
    /// Leave to begin, unless too many are under way.
    pub(crate) fn slot(&self) -> Option<Slot> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Slot)
    }
}

impl Accounts {
    /// Does what begins with an exchange at the upstream and ends with its outcome in the store. Other processes know that it
    /// is under way.
    pub(crate) async fn exchange<T, E: From<StoreError>>(
        &self,
        what: impl AsyncFnOnce(ExchangeId) -> Result<T, E>,
    ) -> Result<T, E> {
        let exchange = self.store.begin_exchange(self.clock.now() + LIFE).await?;
        let extended = async {
            loop {
                tokio::time::sleep(LIFE / 5).await;
                if let Err(error) = self.store.extend_exchange(exchange, self.clock.now() + LIFE).await {
                    tracing::warn!(%error, "other processes are not told that a sign-in is still under way");
                }
            }
        };
        let outcome = tokio::select! {
            outcome = what(exchange) => outcome,
            () = extended => unreachable!("it has no end"),
        };
        if let Err(error) = self.store.end_exchange(exchange).await {
            tracing::debug!(%error, "the end of a sign-in is not noted: it shows by itself in a moment");
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_few_and_come_back() {
        let turns = Turns::default();
        let mut held: Vec<_> = (0..SLOTS).map(|_| turns.slot().unwrap()).collect();
        assert!(turns.slot().is_none());
        held.pop();
        assert!(turns.slot().is_some());
    }
}
