//! Accounts: the one upstream token of a user, shared by all of the user's grants.
//!
//! Forgejo's refresh tokens work once, and each code exchange invalidates the earlier ones. Hence:
//!
//! - a renewal is in single flight per user, in this process and across those that work on the
//!   store (`lease`): a caller that comes during a renewal gets its outcome;
//! - it runs on a task of its own, so that a caller who goes away does not lose the tokens that
//!   Forgejo has just made;
//! - the new tokens replace only those that were renewed: a sign-in in between wins. While the
//!   store fails they are used from memory (`held`);
//! - a refusal ends something only if, in one transaction, the stored tokens are still the refused
//!   ones and no sign-in is running in any process: a refusal of tokens that have just been
//!   replaced says nothing about the user (see [`code_exchanges`](crate::code_exchanges) for the
//!   order of sign-ins);
//! - tokens that no key opens end nothing: another process may have the key, or the operator put it
//!   back;
//! - a renewed token is used to ask for its user, beside its first use: Forgejo renews tokens of
//!   users whom it has locked out, who have left an allowed organization, or who have another login
//!   now.

mod backoff;
mod error;
mod held;
mod key_check;
mod lease;
mod renewal;
mod reseal;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use crate::{
    allowed_users::AllowedUsers,
    config::Settings,
    ids::{LeaseOwner, UserId},
    ports::{AccountStore, Clock, Store, Upstream},
    records::AccountRecord,
    revocation::Revocations,
    seal::{OpenError, Sealer},
    secret,
};
use backoff::Backoff;
pub use error::{AccountError, TerminalError};
use held::HeldTokens;
pub use key_check::KeyCheckError;
use renewal::Renewals;

/// The account of one user. Clones are the same account.
#[derive(Clone)]
pub struct Account {
    accounts: Arc<Accounts>,
    user: UserId,
}

/// An upstream access token.
#[derive(Clone, Debug)]
pub struct UpstreamToken {
    /// The token.
    pub access_token: SecretString,
    /// The time at which it expires.
    pub expires_at: SystemTime,
}

/// The time before its expiry at which a token is renewed whose pair waits for the store.
const LEAD_WHILE_HELD: Duration = Duration::from_secs(60);

/// The accounts of all users.
#[derive(Debug)]
pub(crate) struct Accounts {
    store: Arc<dyn AccountStore>,
    allowed_users: AllowedUsers,
    revocations: Arc<Revocations>,
    sealer: Sealer,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    /// Owns renewals, which must come to their end.
    tasks: TaskTracker,
    /// A token that expires sooner than this is renewed before it is given out.
    refresh_lead: Duration,
    /// This process among those that hold leases.
    owner: LeaseOwner,
    renewals: Renewals,
    held: HeldTokens,
    /// Each method leaves it consistent; never held across an await.
    backoff: Mutex<Backoff>,
}

impl Account {
    /// The token, renewed first if it has expired or is about to.
    ///
    /// A token that is about to expire is given out all the same when it cannot be renewed now.
    /// Dropping the future does not stop a renewal that has begun.
    ///
    /// # Errors
    ///
    /// [`AccountError::Terminal`] when the user has to sign in again, else
    /// [`AccountError::Transient`].
    pub async fn valid_token(&self) -> Result<UpstreamToken, AccountError> {
        let accounts = &self.accounts;
        let (record, lead) = match accounts.held.get(self.user) {
            // What the store would not take either is renewed as late as possible.
            Some(held) => (held.record, LEAD_WHILE_HELD),
            None => {
                let Some(record) = accounts.store.account(self.user).await? else {
                    return accounts.join_or_start_renewal(self.user, None).await;
                };
                (record, accounts.refresh_lead)
            }
        };
        let version = Some(record.version);
        let now = accounts.clock.now();
        match accounts.open(&record) {
            Ok(token) if token.expires_at > now + refresh_lead_for(&record, lead) => Ok(token),
            Ok(token) => match accounts.join_or_start_renewal(self.user, version).await {
                Err(AccountError::Transient(_)) if token.expires_at > now => Ok(token),
                outcome => outcome,
            },
            Err(error) => Err(AccountError::unreadable(self.user, error)),
        }
    }

    /// Renews the token now, however long it lasts: for a token that the upstream has refused.
    /// Callers that come during a renewal get its outcome.
    ///
    /// Dropping the future does not stop a renewal that has begun.
    ///
    /// # Errors
    ///
    /// As for [`Account::valid_token`].
    pub async fn refresh(&self) -> Result<UpstreamToken, AccountError> {
        self.accounts.join_or_start_renewal(self.user, None).await
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Accounts {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        settings: Arc<Settings>,
        revocations: Arc<Revocations>,
        sealer: Sealer,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            store: Arc::<dyn Store>::clone(store),
            refresh_lead: settings.config.refresh_lead,
            allowed_users: AllowedUsers::new(settings, Arc::clone(&upstream)),
            revocations,
            sealer,
            upstream,
            clock,
            tasks,
            owner: LeaseOwner(i64::from_be_bytes(secret::random())),
            renewals: Renewals::default(),
            held: HeldTokens::default(),
            backoff: Mutex::default(),
        }
    }

    /// The account of a user.
    pub(crate) fn account(self: &Arc<Self>, user: UserId) -> Account {
        Account {
            accounts: Arc::clone(self),
            user,
        }
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, record: &AccountRecord) -> Result<UpstreamToken, OpenError> {
        Ok(UpstreamToken {
            access_token: self.sealer.open_access_token(record)?,
            expires_at: record.expires_at,
        })
    }
}

/// The time that a token must have left to be given out as it is. A token that lives shorter than
/// twice the lead is renewed at half its life, so that a long lead does not mean a renewal each
/// time.
fn refresh_lead_for(record: &AccountRecord, lead: Duration) -> Duration {
    let lifetime = record.expires_at.duration_since(record.issued_at).unwrap_or_default();
    lead.min(lifetime / 2)
}
