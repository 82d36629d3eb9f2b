//! The renewal of a user's upstream tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{
    AccountError, Accounts, TerminalError, UpstreamToken,
    lease::{self, Lease},
};
use crate::{
    ids::{TokenVersion, UserId},
    keepalive,
    ports::{RefusalOutcome, RefusedTokens, UpstreamError, UpstreamTokens},
    records::AccountRecord,
    retry,
    seal::OpenError,
};

type Renewal = Result<UpstreamToken, AccountError>;

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

    async fn renew(&self, user: UserId, version: Option<TokenVersion>) -> Renewal {
        let account = match self.acquire_lease(user, version).await? {
            Lease::AlreadyRenewed(record) => return self.opened(&record),
            Lease::Acquired(account) => account,
        };
        let work = self.renew_leased(user, account);
        let outcome = keepalive::with_extended_lease(lease::LIFETIME, work, || self.extend_lease(user)).await;
        self.release_lease(user).await;
        outcome
    }

    async fn renew_leased(&self, user: UserId, account: Option<AccountRecord>) -> Renewal {
        let Some(record) = account else {
            return self.end_user(user, None, TerminalError::NoAccount).await;
        };
        let version = Some(record.version);
        let refresh_token = match self.sealer.open_refresh_token(&record) {
            Ok(token) => token,
            Err(error @ OpenError::UnknownKey(_)) => return Err(AccountError::unreadable(user, error)),
            Err(error @ OpenError::Forged) => {
                return self.end_user(user, version, TerminalError::Unreadable(error)).await;
            }
        };
        let error = match self.upstream.refresh(&refresh_token).await {
            Ok(tokens) => {
                tracing::debug!(user = user.0, "Forgejo tokens renewed");
                return self.accept(record, tokens).await;
            }
            Err(UpstreamError::Refused(text)) => {
                return self.end_user(user, version, TerminalError::Refused(text)).await;
            }
            Err(error) => error,
        };
        if matches!(error, UpstreamError::Misconfigured(_)) {
            tracing::error!(user = user.0, %error, "Forgejo tokens not renewed: check the [forgejo] configuration");
        } else {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(user = user.0, error, "Forgejo tokens not renewed: next request retries");
        }
        Err(AccountError::transient(error))
    }

    /// Stores renewed tokens in place of the former ones, and checks that their user is not locked
    /// out.
    async fn accept(&self, former: AccountRecord, tokens: UpstreamTokens) -> Renewal {
        let user = former.user;
        let renewed = self.sealer.seal_account(user, &tokens, self.clock.now());
        let replaced = retry::store_with_retries(|| self.store.replace_account(renewed.clone(), former.version)).await;
        let replaced = replaced.inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::error!(
                user = user.0,
                error,
                "renewed Forgejo tokens not stored: the store failed repeatedly; the user must sign in again"
            );
        })?;
        let token = if replaced {
            UpstreamToken {
                access_token: tokens.access_token,
                expires_at: renewed.expires_at,
            }
        } else {
            // The user has signed in again or was ended in between: the stored tokens count.
            match self.store.account(user).await? {
                Some(newer) => self.opened(&newer)?,
                None => return Err(AccountError::Terminal(TerminalError::NoAccount)),
            }
        };
        if self.is_locked_out(&token).await {
            return self
                .end_user(user, Some(renewed.version), TerminalError::LockedOut)
                .await;
        }
        Ok(token)
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
        loop {
            match self.revocations.end_refused_user(refused, self.clock.now()).await? {
                RefusalOutcome::Revoked => break,
                RefusalOutcome::LeaseHeld => return Err(AccountError::lease_held()),
                RefusalOutcome::Replaced(record) => return self.opened(&record),
                // Exchanges that begin later have not invalidated the tokens.
                RefusalOutcome::ExchangeRunning(exchange) => refused.newest = Some(exchange),
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

    /// Asks whether the upstream has locked out the user of a new token. Without an answer the user
    /// counts as active.
    async fn is_locked_out(&self, token: &UpstreamToken) -> bool {
        match self.upstream.user(&token.access_token).await {
            Ok(user) => !user.active,
            Err(error) => matches!(error, UpstreamError::Refused(_)),
        }
    }
}

impl Drop for RenewalGuard<'_> {
    fn drop(&mut self) {
        let mut renewals = self.renewals.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.remove(&self.user);
    }
}
