//! Renewals in single flight across processes: who renews an account holds its lease.
//!
//! - Whoever finds the lease taken looks again and again, until it is free or the pair is no longer the one that it has come
//!   to renew. Then the other process has renewed it, and its pair is the outcome, whatever that one still has to do.
//! - A lease is extended for as long as its holder is at work. **The holder that dies** leaves it behind: it runs out after
//!   [`LIFE`], and the next one renews the pair that is in the store. If the dead one had reached the upstream, that pair is
//!   dead too, and the user has to sign in again: the one loss that cannot be helped, since the upstream gives each pair
//!   to one asker once. A store that knows at its start that no other process has it open drops what the dead have
//!   left (`SqliteStore::open` does), so that after a crash of the only process nobody waits.
//! - A holder that stands still for longer than [`LIFE`] (suspended, say) counts as dead. If it had an answer of the
//!   upstream in its hand, that is lost as if it were; a refusal in its hand ends nothing while another one has the lease.

use std::time::Duration;

use super::{AccountError, Accounts};
use crate::{
    ids::{PairId, UserId},
    records::AccountRecord,
};

/// What became of the wait for a lease.
pub(super) enum Turn {
    /// It is held, and the account is as it was when it was taken.
    Ours(Option<AccountRecord>),
    /// It is not held: another process has renewed the pair.
    Renewed(AccountRecord),
}

/// Another process is at a renewal for so long that nobody waits for it.
#[derive(Debug, thiserror::Error)]
#[error("another process is renewing the account")]
pub(super) struct Elsewhere;

/// How long a lease is good without a word of its holder.
const LIFE: Duration = Duration::from_secs(10);
/// How long to wait for another process: longer than a dead one can keep a lease, and than an upstream has to answer a renewal.
/// What else a holder asks of it comes after the new pair is in the store, and nobody waits for that.
const WAIT: Duration = Duration::from_secs(15);
/// How often to look at what another process is doing.
pub(super) const LOOK: Duration = Duration::from_millis(50);

impl Accounts {
    /// Takes the lease of a user's account, to renew the pair named `seen`, or the one that is there.
    pub(super) async fn lease(&self, user: UserId, seen: Option<PairId>) -> Result<Turn, AccountError> {
        let turn = tokio::time::timeout(WAIT, self.wait_for_lease(user, seen));
        turn.await.unwrap_or_else(|_| Err(AccountError::elsewhere()))
    }

    async fn wait_for_lease(&self, user: UserId, mut seen: Option<PairId>) -> Result<Turn, AccountError> {
        loop {
            let now = self.clock.now();
            let lease = self.store.lease(user, self.process, now + LIFE, now).await?;
            match lease.account {
                Some(record) if seen.is_some_and(|seen| seen != record.version) => {
                    if lease.taken {
                        self.release_lease(user).await;
                    }
                    return Ok(Turn::Renewed(record));
                }
                account if lease.taken => return Ok(Turn::Ours(account)),
                account => seen = seen.or(account.map(|account| account.version)),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Keeps a lease from running out. It has no end.
    pub(super) async fn extend_lease(&self, user: UserId) {
        loop {
            tokio::time::sleep(LIFE / 5).await;
            let now = self.clock.now();
            match self.store.lease(user, self.process, now + LIFE, now).await {
                Ok(lease) if lease.taken => {}
                Ok(_) => tracing::warn!(
                    user = user.0,
                    "another process has taken the lease of an account that is being renewed here"
                ),
                Err(error) => tracing::warn!(user = user.0, %error, "a lease is not extended"),
            }
        }
    }

    /// Gives a lease back. One that cannot be given back runs out.
    pub(super) async fn release_lease(&self, user: UserId) {
        if let Err(error) = self.store.release(user, self.process).await {
            tracing::debug!(user = user.0, %error, "a lease is not given back: it runs out in a moment");
        }
    }
}
