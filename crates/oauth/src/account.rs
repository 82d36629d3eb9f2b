//! Accounts: the one upstream credential of a user, shared by all of the user's grants.
//!
//! Forgejo's refresh tokens are good once, and each code exchange kills those before it. Hence:
//!
//! - a renewal is in single flight per user, in this process and across those that work on the store (`lease`): who comes
//!   while one is under way gets its outcome;
//! - it runs on a task of its own, so that a caller who goes away does not lose the pair that Forgejo has just made;
//! - the new pair is in the store before anyone gets it, and only in the place of the pair that was renewed: a sign-in
//!   that came in between wins;
//! - a refusal ends something only if, in one transaction, the pair in the store is still the one that was refused and no
//!   sign-in is under way in any process: a refusal for a pair that has just been replaced says nothing about the user
//!   (see `turns` for the order of sign-ins themselves);
//! - what a key has sealed that is not in the key file ends nothing: another process may have it, or the operator put it back;
//! - a renewed token is used once at once, to ask whose it is: Forgejo renews tokens of users whom it has locked out.

mod error;
mod lease;
mod reseal;
pub(crate) mod turns;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    ids::{LeaseOwner, PairId, UserId},
    ports::{Clock, GrantEvents, Judged, Store, StoreError, TokenPair, Upstream, UpstreamError},
    records::AccountRecord,
    seal::{Binding, OpenError, Sealer},
    secret,
};
pub use error::{AccountError, Refusal};
use lease::Turn;
use turns::Turns;

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
    /// When it expires.
    pub expires_at: SystemTime,
}

type Outcome = Result<UpstreamToken, AccountError>;

/// The accounts of all users.
pub(crate) struct Accounts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Sealer,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Arc<dyn GrantEvents>,
    /// A token with less than this left is renewed before it is given out.
    pub(crate) lead: Duration,
    /// Owns renewals and sign-ins, which must come to their end whoever asked for them.
    pub(crate) tasks: TaskTracker,
    /// The sign-ins under way.
    pub(crate) turns: Turns,
    /// What this process is called where it holds leases: a random number.
    pub(crate) process: LeaseOwner,
    /// The renewals under way. An entry is there exactly as long as its task.
    pub(crate) flights: Mutex<HashMap<UserId, watch::Receiver<Option<Outcome>>>>,
}

/// Takes a renewal out of the table, also when its task panics.
struct Landing<'a> {
    accounts: &'a Accounts,
    user: UserId,
}

/// How often a pair that is not in the store yet is offered to it.
const STORE_ATTEMPTS: u32 = 3;

impl Account {
    pub(crate) fn new(accounts: Arc<Accounts>, user: UserId) -> Self {
        Self { accounts, user }
    }

    /// The token as it stands, renewed first if it has run out or is about to.
    ///
    /// A token that is about to run out is given out all the same when it cannot be renewed now. Dropping the future
    /// leaves a renewal that has begun to its end.
    ///
    /// # Errors
    ///
    /// [`AccountError::Terminal`] when the user has to sign in again, else [`AccountError::Transient`].
    pub async fn current(&self) -> Result<UpstreamToken, AccountError> {
        let record = match self.accounts.store.account(self.user).await? {
            Some(record) => record,
            None => return self.accounts.clone().join(self.user, None).await,
        };
        let seen = Some(record.version);
        let now = self.accounts.clock.now();
        let opened = self.accounts.open(&record);
        match opened {
            Ok(token) if token.expires_at > now + self.accounts.lead_for(&record) => Ok(token),
            Ok(token) => match self.accounts.clone().join(self.user, seen).await {
                Err(AccountError::Transient(_)) if token.expires_at > now => Ok(token),
                outcome => outcome,
            },
            Err(error @ OpenError::UnknownKey(_)) => Err(AccountError::unopened(self.user, error)),
            Err(OpenError::Forged) => self.accounts.clone().join(self.user, seen).await,
        }
    }

    /// Renews the token now, however much it has left: for a token that the upstream has refused. Callers that
    /// come while a renewal is under way get its outcome.
    ///
    /// Dropping the future leaves a renewal that has begun to its end.
    ///
    /// # Errors
    ///
    /// As for [`Account::current`].
    pub async fn refresh(&self) -> Result<UpstreamToken, AccountError> {
        self.accounts.clone().join(self.user, None).await
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
    /// Seals a pair for a user, under a new version.
    pub(crate) fn record(&self, user: UserId, pair: &TokenPair) -> AccountRecord {
        let now = self.clock.now();
        AccountRecord {
            user,
            version: PairId(i64::from_be_bytes(secret::random())),
            access: self.sealer.seal(&pair.access_token, Binding::Access(user)),
            refresh: self.sealer.seal(&pair.refresh_token, Binding::Refresh(user)),
            issued_at: now,
            expires_at: now + pair.expires_in,
        }
    }

    /// How much a token must have left to be given out as it is. A token that lives shorter than twice the lead is
    /// renewed at half its life, so that a long lead does not mean a renewal each time.
    fn lead_for(&self, record: &AccountRecord) -> Duration {
        let lifetime = record.expires_at.duration_since(record.issued_at).unwrap_or_default();
        self.lead.min(lifetime / 2)
    }

    /// Ends all grants of a user and forgets the account. The store tells.
    pub(crate) async fn end_user(&self, user: UserId) -> Result<(), StoreError> {
        self.store.end_user(user).await
    }

    /// Joins the renewal of a user, or begins one. What is named `seen` is to be renewed, or whatever is there.
    async fn join(self: Arc<Self>, user: UserId, seen: Option<PairId>) -> Outcome {
        let mut flight = {
            let mut flights = self.flights();
            match flights.get(&user) {
                Some(flight) => flight.clone(),
                None => {
                    let (tell, flight) = watch::channel(None);
                    flights.insert(user, flight.clone());
                    let accounts = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        let landing = Landing {
                            accounts: &accounts,
                            user,
                        };
                        let outcome = accounts.renew(user, seen).await;
                        // First out of the table, then told: who comes after the outcome is known begins anew.
                        drop(landing);
                        tell.send_replace(Some(outcome));
                    });
                    flight
                }
            }
        };
        match flight.wait_for(Option::is_some).await {
            Ok(outcome) => match outcome.as_ref() {
                Some(outcome) => outcome.clone(),
                None => Err(AccountError::cut_short()),
            },
            Err(_) => Err(AccountError::cut_short()),
        }
    }

    async fn renew(&self, user: UserId, seen: Option<PairId>) -> Outcome {
        let account = match self.lease(user, seen).await? {
            Turn::Renewed(record) => return self.give(&record),
            Turn::Ours(account) => account,
        };
        let outcome = tokio::select! {
            outcome = self.renew_leased(user, account) => outcome,
            () = self.extend_lease(user) => unreachable!("it has no end"),
        };
        self.release_lease(user).await;
        outcome
    }

    async fn renew_leased(&self, user: UserId, account: Option<AccountRecord>) -> Outcome {
        let Some(record) = account else {
            return self.refuse(user, None, Refusal::Missing).await;
        };
        let refresh_token = match self.sealer.open(&record.refresh, Binding::Refresh(user)) {
            Ok(token) => token,
            Err(error @ OpenError::UnknownKey(_)) => return Err(AccountError::unopened(user, error)),
            Err(error @ OpenError::Forged) => {
                return self.refuse(user, Some(record.version), Refusal::Sealed(error)).await;
            }
        };
        match self.upstream.refresh(&refresh_token).await {
            Ok(pair) => {
                tracing::debug!(user = user.0, "account renewed");
                let renewed = self.record(user, &pair);
                let version = renewed.version;
                let outcome = self.keep(renewed, record.version, &pair).await;
                match &outcome {
                    Ok(token) if self.is_locked_out(&token.access_token).await => {
                        self.refuse(user, Some(version), Refusal::LockedOut).await
                    }
                    Ok(_) | Err(_) => outcome,
                }
            }
            Err(UpstreamError::Refused(text)) => self.refuse(user, Some(record.version), Refusal::Upstream(text)).await,
            Err(
                error
                @ (UpstreamError::Misconfigured(_) | UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_)),
            ) => {
                if matches!(error, UpstreamError::Misconfigured(_)) {
                    tracing::error!(user = user.0, %error, "the account cannot be renewed until the operator mends the configuration");
                } else {
                    tracing::warn!(
                        user = user.0,
                        error = &error as &dyn std::error::Error,
                        "the account cannot be renewed now"
                    );
                }
                Err(AccountError::Transient(Arc::new(error)))
            }
        }
    }

    /// Puts a renewed pair into the store, in the place of the one that it renews.
    async fn keep(&self, record: AccountRecord, version: PairId, pair: &TokenPair) -> Outcome {
        let user = record.user;
        let mut attempt = 1;
        // The former pair is dead at the upstream: a store that is busy is worth waiting for.
        let replaced = loop {
            match self.store.replace_account(record.clone(), version).await {
                Ok(replaced) => break replaced,
                Err(error) if attempt == STORE_ATTEMPTS => {
                    tracing::error!(
                        user = user.0,
                        error = &error as &dyn std::error::Error,
                        "a renewed account is lost"
                    );
                    return Err(error.into());
                }
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                    attempt += 1;
                }
            }
        };
        if replaced {
            return Ok(UpstreamToken {
                access_token: pair.access_token.clone(),
                expires_at: record.expires_at,
            });
        }
        // Signed in anew or ended in between: what is there now counts.
        match self.store.account(user).await? {
            Some(newer) => self.give(&newer),
            None => Err(AccountError::Terminal(Refusal::Missing)),
        }
    }

    /// Ends a user's grants because the pair named `version` is of no use, unless another pair has taken its place.
    async fn refuse(&self, user: UserId, version: Option<PairId>, refusal: Refusal) -> Outcome {
        // The sign-ins that are under way now. Later ones have not killed the pair.
        let mut known = None;
        loop {
            let judged = self
                .store
                .end_refused(user, version, self.process, known, self.clock.now());
            match judged.await? {
                Judged::Ended => break,
                Judged::Elsewhere => return Err(AccountError::elsewhere()),
                Judged::Replaced(record) => return self.give(&record),
                Judged::Exchanging(newest) => {
                    known = Some(newest);
                    tokio::time::sleep(lease::LOOK).await;
                }
            }
        }
        tracing::warn!(
            user = user.0,
            error = &refusal as &dyn std::error::Error,
            "the user has to sign in again"
        );
        Err(AccountError::Terminal(refusal))
    }

    /// What is there now, as the outcome of a renewal that another one has come before. If it cannot be opened the next renewal
    /// finds out what that means.
    fn give(&self, record: &AccountRecord) -> Outcome {
        self.open(record)
            .map_err(|error| AccountError::unopened(record.user, error))
    }

    /// Whether the upstream has locked out the user of a token that it has just made. No answer is no reason to think so.
    async fn is_locked_out(&self, access_token: &SecretString) -> bool {
        match self.upstream.user(access_token).await {
            Ok(user) => !user.active,
            Err(UpstreamError::Refused(_)) => true,
            Err(UpstreamError::Misconfigured(_) | UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_)) => {
                false
            }
        }
    }

    fn open(&self, record: &AccountRecord) -> Result<UpstreamToken, OpenError> {
        let access_token = self.sealer.open(&record.access, Binding::Access(record.user))?;
        Ok(UpstreamToken {
            access_token,
            expires_at: record.expires_at,
        })
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<UserId, watch::Receiver<Option<Outcome>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("store", &self.store)
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.accounts.flights().remove(&self.user);
    }
}
