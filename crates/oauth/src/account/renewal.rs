//! The renewal of a user's upstream tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    AccountError, Accounts, TerminalError, UpstreamToken,
    backoff::Failed,
    held::{Held, Placement},
    lease::{self, Lease},
};
use crate::{
    ids::{TokenVersion, UserId},
    keepalive,
    ports::{RefusalOutcome, RefusedTokens, UpstreamError, UpstreamTokens},
    records::AccountRecord,
};

type Renewal = Result<UpstreamToken, AccountError>;

/// The longest wait for sign-ins under way before a user is ended. A later renewal waits again.
const EXCHANGE_WAIT: Duration = Duration::from_secs(15);

/// The running renewals. Each has an entry for exactly as long as its task runs.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<UserId, watch::Receiver<Option<Renewal>>>>);

/// Removes the entry of a renewal, also when its task panics.
struct RenewalGuard<'a> {
    renewals: &'a Renewals,
    user: UserId,
}

impl Accounts {
    /// The outcome of the running renewal of a user, or of a new one. It renews the tokens named
    /// `version`, or the stored ones.
    pub(super) async fn join_or_start_renewal(
        self: &Arc<Self>,
        user: UserId,
        version: Option<TokenVersion>,
    ) -> Renewal {
        let mut running = {
            let mut renewals = self.renewals.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !renewals.contains_key(&user) {
                self.backoff().check(user, self.clock.uptime())?;
            }
            let new = || {
                let (sender, receiver) = watch::channel(None);
                let accounts = Arc::clone(self);
                self.tasks.spawn(async move {
                    let guard = RenewalGuard {
                        renewals: &accounts.renewals,
                        user,
                    };
                    let outcome = accounts.renew(user, version).await;
                    // Callers that come after the outcome is published begin a new renewal.
                    drop(guard);
                    sender.send_replace(Some(outcome));
                });
                receiver
            };
            renewals.entry(user).or_insert_with(new).clone()
        };
        let outcome = running.wait_for(Option::is_some).await;
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(AccountError::transient("the renewal was interrupted")))
    }

    async fn renew(self: &Arc<Self>, user: UserId, version: Option<TokenVersion>) -> Renewal {
        let held = self.held.get(user);
        let stored = held.as_ref().map(|held| held.stored).or(version);
        let account = match self.acquire_lease(user, stored).await? {
            Lease::AlreadyRenewed(record) => return self.opened(&record),
            Lease::Acquired(account) => account,
        };
        let work = self.renew_leased(user, account, held);
        let outcome = keepalive::with_extended_lease(lease::LIFETIME, work, || self.extend_lease(user)).await;
        if self.held.get(user).is_some() {
            // Other processes must not renew what the store has: the task that stores the tokens
            // keeps the lease.
            return outcome;
        }
        // A lease that is not released expires in a moment.
        let _ = tokio::time::timeout(lease::RELEASE_TIMEOUT, self.release_lease(user)).await;
        outcome
    }

    async fn renew_leased(
        self: &Arc<Self>,
        user: UserId,
        account: Option<AccountRecord>,
        held: Option<Held>,
    ) -> Renewal {
        let Some(stored) = account else {
            return self.end_user(user, None, TerminalError::NoAccount).await;
        };
        let stored_version = stored.version;
        let record = held.filter(|held| held.stored == stored_version);
        let record = record.map_or(stored, |held| held.record);
        let refresh_token = self.sealer.open_refresh_token(&record);
        let refresh_token = refresh_token.map_err(|error| AccountError::unreadable(user, error))?;
        let error = match self.upstream.refresh(&refresh_token).await {
            Ok(tokens) => {
                if let Some(failures) = self.backoff().succeed(user) {
                    tracing::info!(failures, "Forgejo renews tokens again");
                }
                tracing::debug!(user = user.0, "Forgejo tokens renewed");
                return self.accept(user, (stored_version, record.version), tokens).await;
            }
            Err(error) => error,
        };
        if let Some(refusal) = self.refusal(&record, &error).await {
            return self.end_user(user, Some(stored_version), refusal).await;
        }
        let failed = Failed::of(&error);
        if failed == Failed::User
            && let Some(failures) = self.backoff().end_outage()
        {
            tracing::info!(failures, "Forgejo answers again");
        }
        let misconfigured = matches!(error, UpstreamError::Misconfigured(_));
        let error = AccountError::transient(error);
        // Only the first failure is logged: the others say the same.
        if self.backoff().fail(user, failed, &error, self.clock.uptime()) {
            let error = &error as &dyn std::error::Error;
            if misconfigured {
                tracing::error!(
                    user = user.0,
                    error,
                    "Forgejo tokens not renewed: check the [forgejo] configuration"
                );
            } else {
                tracing::warn!(
                    user = user.0,
                    error,
                    "Forgejo tokens not renewed: tried again after a wait"
                );
            }
        }
        Err(error)
    }

    /// The reason why the user has to sign in again, if the upstream has refused to renew the
    /// tokens for good. A reason that is not known counts only if the upstream refuses the access
    /// token, too.
    async fn refusal(&self, record: &AccountRecord, error: &UpstreamError) -> Option<TerminalError> {
        match error {
            UpstreamError::Refused(text) => Some(TerminalError::Refused(text.clone())),
            UpstreamError::Unconfirmed(text) => {
                let token = self.open(record).ok()?;
                let refused = self.upstream.user(&token.access_token).await;
                matches!(refused, Err(UpstreamError::Refused(_))).then(|| TerminalError::Refused(text.clone()))
            }
            UpstreamError::LockedOut(_) => Some(TerminalError::LockedOut),
            UpstreamError::Misconfigured(_)
            | UpstreamError::Busy { .. }
            | UpstreamError::Unavailable(_)
            | UpstreamError::Unexpected(_) => None,
        }
    }

    /// Stores renewed tokens in place of those that are in the store, or of those that were renewed
    /// if these are there by now. A task of its own then looks at the user.
    async fn accept(
        self: &Arc<Self>,
        user: UserId,
        (stored, renewed_from): (TokenVersion, TokenVersion),
        tokens: UpstreamTokens,
    ) -> Renewal {
        let renewed = self.sealer.seal_account(user, &tokens, self.clock.now());
        let version = renewed.version;
        let token = UpstreamToken {
            access_token: tokens.access_token,
            expires_at: renewed.expires_at,
        };
        let held = Held {
            record: renewed,
            stored,
            renewed_from,
        };
        match self.place_renewed(held).await {
            Placement::Stored | Placement::Held => {
                let (accounts, checked) = (Arc::clone(self), token.clone());
                self.tasks
                    .spawn(async move { accounts.check_user(user, version, &checked).await });
                Ok(token)
            }
            // The user has signed in again or was ended in between: the stored tokens count.
            Placement::Replaced => match self.store.account(user).await? {
                Some(newer) => self.opened(&newer),
                None => Err(AccountError::Terminal(TerminalError::NoAccount)),
            },
        }
    }

    /// Ends a user's grants because the tokens named `version` are useless, unless other tokens
    /// have replaced them.
    async fn end_user(&self, user: UserId, version: Option<TokenVersion>, error: TerminalError) -> Renewal {
        let mut refused = RefusedTokens {
            user,
            version,
            owner: self.owner,
            newest: None,
        };
        let end = Instant::now() + EXCHANGE_WAIT;
        loop {
            match self.revocations.end_refused_user(refused, self.clock.now()).await? {
                RefusalOutcome::Revoked => break,
                RefusalOutcome::LeaseHeld => return Err(AccountError::lease_held()),
                RefusalOutcome::Replaced(record) => return self.opened(&record),
                // Exchanges that begin later have not invalidated the tokens.
                RefusalOutcome::ExchangeRunning(exchange) if Instant::now() < end => refused.newest = Some(exchange),
                RefusalOutcome::ExchangeRunning(_) => {
                    return Err(AccountError::transient(
                        "a sign-in is under way, which may be this user's",
                    ));
                }
            }
            tokio::time::sleep(lease::POLL_INTERVAL).await;
        }
        tracing::warn!(
            user = user.0,
            error = &error as &dyn std::error::Error,
            "all grants of the user ended: the user must sign in again"
        );
        Err(AccountError::Terminal(error))
    }

    /// The stored token, as the outcome of a renewal that another one has preceded. If it cannot be
    /// opened, the next renewal decides.
    fn opened(&self, record: &AccountRecord) -> Renewal {
        self.open(record)
            .map_err(|error| AccountError::unreadable(record.user, error))
    }

    /// Looks at the user of renewed tokens: one who may not use this server any more is ended, and
    /// a new login is noted. Without an answer the user stays.
    async fn check_user(&self, user: UserId, version: TokenVersion, token: &UpstreamToken) {
        let found = match self.upstream.user(&token.access_token).await {
            Ok(found) => found,
            Err(UpstreamError::LockedOut(_)) => {
                return self.end_checked_user(user, version, TerminalError::LockedOut).await;
            }
            Err(_) => return,
        };
        let reason = if !found.active {
            TerminalError::LockedOut
        } else if matches!(self.allowed_users.allows(&token.access_token, &found).await, Ok(false)) {
            TerminalError::NotAllowed
        } else {
            if let Err(error) = self.revocations.note_login(user, found.login).await {
                tracing::warn!(user = user.0, %error, "login of a user not stored: the next renewal tries again");
            }
            return;
        };
        self.end_checked_user(user, version, reason).await;
    }

    async fn end_checked_user(&self, user: UserId, version: TokenVersion, reason: TerminalError) {
        if let Err(AccountError::Transient(error)) = self.end_user(user, Some(version), reason).await {
            tracing::warn!(user = user.0, %error, "user who may not use this server not ended: the next renewal tries again");
        }
    }
}

impl Drop for RenewalGuard<'_> {
    fn drop(&mut self) {
        let mut renewals = self.renewals.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.remove(&self.user);
    }
}
