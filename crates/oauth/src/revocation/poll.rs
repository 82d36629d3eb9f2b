//! Revocations of other processes, read from the log in the store.
//!
//! The maintenance task polls it every second, and so does a request whose process has not polled
//! for a second. A bearer whose grant has ended in another process is therefore honored for about a
//! second, and while the store fails, for at most the minute that the cache keeps an entry. The log
//! also holds what this process has ended, which is then reported twice.

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::Revocations;
use crate::ports::StoreError;

/// The part of the log that has been read.
#[derive(Debug, Default)]
pub(super) struct LogPosition {
    /// The last entry that has been read. `None` before the first poll.
    read: Option<i64>,
    polled_at: Option<SystemTime>,
}

/// The longest time between a poll and a request that relies on it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Revocations {
    /// Polls if the last poll is too old. One request polls, and the others do not wait for it. A
    /// failed poll counts as a poll: the cache stands until the next one. A caller that goes away
    /// before the answer has not polled.
    pub(crate) async fn poll_if_due(&self, now: SystemTime) {
        let polled_at = self.position().polled_at;
        if matches!(polled_at.map(|polled_at| now.duration_since(polled_at)), Some(Ok(age)) if age < POLL_INTERVAL) {
            return;
        }
        let Ok(_polling) = self.polling.try_lock() else {
            return;
        };
        if let Err(error) = self.poll().await {
            tracing::warn!(%error, "revocations of other brokers not read: trying again in a second");
        }
        self.position().polled_at = Some(now);
    }

    /// Reads and reports the revocations since the last poll.
    pub(crate) async fn poll(&self) -> Result<(), StoreError> {
        loop {
            let after = self.position().read;
            let batch = self.store.revocations(after).await?;
            if batch.truncated {
                // The ended grants are not known any more. No bearer reaches their sessions, which
                // end when they idle.
                self.cache.forget_all();
            }
            for revocation in &batch.revocations {
                if revocation.whole_grant {
                    self.grant_ended(&revocation.grant);
                } else {
                    self.cache.forget_grant(&revocation.grant);
                }
            }
            let mut position = self.position();
            // A concurrent poll may have read more.
            position.read = position.read.max(Some(batch.position));
            if batch.revocations.is_empty() {
                return Ok(());
            }
        }
    }

    fn position(&self) -> MutexGuard<'_, LogPosition> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
