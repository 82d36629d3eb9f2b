//! Tokens that the upstream has issued and the store has not taken yet.
//!
//! The upstream accepts only the newest tokens of a user, so they are never dropped: this process
//! serves them from memory and writes them as soon as the store takes them.
//!
//! Invariant: a user has an entry for exactly as long as a task tries to store it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::Accounts;
use crate::{
    ids::{TokenVersion, UserId},
    records::AccountRecord,
};

/// The tokens of users that wait for the store.
#[derive(Debug, Default)]
pub(super) struct HeldTokens(Mutex<HashMap<UserId, Held>>);

/// Sealed tokens that replace others.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) record: AccountRecord,
    /// Those in the store when the renewal began.
    pub(super) stored: TokenVersion,
    /// Those whose refresh token was used. They may have been held themselves, and stored since.
    pub(super) renewed_from: TokenVersion,
}

/// The outcome of storing renewed tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// They are in the store.
    Stored,
    /// The store has others: of a sign-in, or none because the user was ended.
    Replaced,
    /// They wait for the store.
    Held,
}

/// The wait between two attempts to store tokens.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time for which the caller of a renewal waits for the store.
const STORE_WAIT: Duration = Duration::from_secs(1);

impl Accounts {
    /// Stores renewed tokens in place of those that they replace. A task of its own tries until the
    /// store has answered, whether or not the caller still waits.
    pub(super) async fn place_renewed(self: &Arc<Self>, held: Held) -> Placement {
        let user = held.record.user;
        let (sender, mut placed) = watch::channel(Placement::Held);
        if self.held.insert(held) {
            let accounts = Arc::clone(self);
            self.tasks
                .spawn(async move { _ = sender.send(accounts.store_held(user).await) });
        }
        let _ = tokio::time::timeout(STORE_WAIT, placed.changed()).await;
        *placed.borrow()
    }

    /// Stores the held tokens of a user, and those that replace them meanwhile.
    async fn store_held(&self, user: UserId) -> Placement {
        let begun = Instant::now();
        let mut failed = false;
        loop {
            let Some(held) = self.held.get(user) else {
                return Placement::Replaced;
            };
            let mut replaced = self.store.replace_account(held.record.clone(), held.stored).await;
            if matches!(replaced, Ok(false)) && held.renewed_from != held.stored {
                replaced = self.store.replace_account(held.record.clone(), held.renewed_from).await;
            }
            match replaced {
                Ok(replaced) => {
                    if !self.held.finish(user, &held, replaced) {
                        continue;
                    }
                    if begun.elapsed() >= STORE_WAIT {
                        // The renewal has not waited, and has left the lease to this task.
                        self.release_lease(user).await;
                    }
                    if failed {
                        tracing::info!(user = user.0, "renewed Forgejo tokens stored: the store works again");
                    }
                    return if replaced {
                        Placement::Stored
                    } else {
                        Placement::Replaced
                    };
                }
                Err(error) if !failed => {
                    failed = true;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        user = user.0,
                        error,
                        "renewed Forgejo tokens not stored: they are used from memory and stored once the store works"
                    );
                }
                Err(_) => {}
            }
            self.extend_lease(user).await;
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

impl HeldTokens {
    /// The held tokens of a user.
    pub(super) fn get(&self, user: UserId) -> Option<Held> {
        self.entries().get(&user).cloned()
    }

    /// Holds tokens, which may replace held ones. Returns `true` if no task stores the user's
    /// tokens yet.
    fn insert(&self, held: Held) -> bool {
        self.entries().insert(held.record.user, held).is_none()
    }

    /// Removes tokens for which the store has answered. Returns `false` if newer ones have replaced
    /// them, which replace what is stored now.
    fn finish(&self, user: UserId, held: &Held, is_stored: bool) -> bool {
        let mut entries = self.entries();
        let Some(newest) = entries.get_mut(&user) else {
            return true;
        };
        if newest.record.version == held.record.version {
            entries.remove(&user);
            return true;
        }
        if is_stored {
            newest.stored = held.record.version;
        }
        false
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<UserId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
