//! Renewals in single flight across processes: the process that renews an account holds its lease.
//!
//! - A process that finds the lease held polls until it is free or the tokens have been replaced.
//!   Then the other process has renewed them, and its tokens are the outcome, whatever that process
//!   still has to do.
//! - The holder extends the lease during the renewal. **A holder that dies** leaves it behind: it
//!   expires after [`LIFETIME`], and the next process renews the stored tokens. If the dead process
//!   had reached the upstream, it has used them up, and the user has to sign in again: this one
//!   loss cannot be avoided, since the upstream issues each pair of tokens once. A store that knows
//!   at its start that no other process has it open deletes the leases of dead ones
//!   (`SqliteStore::open` does), so that after a crash of the only process no request waits.
//! - A holder that stands still for longer than [`LIFETIME`] (suspended, say) counts as dead.
//!   Tokens that it had just received are lost in the same way; a refusal that it had received ends
//!   nothing while another process holds the lease.

use std::time::Duration;

use super::{AccountError, Accounts};
use crate::{
    ids::{TokenVersion, UserId},
    records::AccountRecord,
};

/// The outcome of waiting for a lease.
pub(super) enum Lease {
    /// This process holds it. The account is as it was at the acquisition.
    Acquired(Option<AccountRecord>),
    /// This process does not hold it: another process has renewed the tokens.
    AlreadyRenewed(AccountRecord),
}

/// The time after which a lease expires that its holder does not extend.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);
/// The longest wait for another process: longer than a dead one can keep a lease, and than an
/// upstream takes to answer a renewal. A holder stores the new tokens before anything else, so that
/// no process waits for the rest.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest wait for the release of a lease: callers wait for the outcome of the renewal.
pub(super) const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval at which a process polls for the progress of another.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Accounts {
    /// Acquires the lease of a user's account to renew the tokens named `version`, or the stored
    /// ones.
    pub(super) async fn acquire_lease(
        &self,
        user: UserId,
        version: Option<TokenVersion>,
    ) -> Result<Lease, AccountError> {
        let lease = tokio::time::timeout(TIMEOUT, self.wait_for_lease(user, version));
        lease.await.unwrap_or_else(|_| Err(AccountError::lease_held()))
    }

    async fn wait_for_lease(&self, user: UserId, mut version: Option<TokenVersion>) -> Result<Lease, AccountError> {
        loop {
            let now = self.clock.now();
            let attempt = self.store.acquire_lease(user, self.owner, now + LIFETIME, now).await?;
            match attempt.account {
                Some(record) if version.is_some_and(|version| version != record.version) => {
                    if attempt.acquired {
                        self.release_lease(user).await;
                    }
                    return Ok(Lease::AlreadyRenewed(record));
                }
                account if attempt.acquired => return Ok(Lease::Acquired(account)),
                account => version = version.or(account.map(|account| account.version)),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) async fn extend_lease(&self, user: UserId) {
        let now = self.clock.now();
        match self.store.acquire_lease(user, self.owner, now + LIFETIME, now).await {
            Ok(attempt) if attempt.acquired => {}
            Ok(_) => tracing::warn!(
                user = user.0,
                "account lease lost to another broker during a renewal: the user may have to sign in again"
            ),
            Err(error) => tracing::warn!(user = user.0, %error, "account lease not extended: it may be taken over"),
        }
    }

    pub(super) async fn release_lease(&self, user: UserId) {
        if let Err(error) = self.store.release_lease(user, self.owner).await {
            tracing::debug!(user = user.0, %error, "account lease not released: it expires in a moment");
        }
    }
}
