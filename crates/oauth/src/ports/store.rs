//! The store: clients, grants with their codes and tokens, accounts.
//!
//! Every method is one transaction: it has happened as a whole when it returns `Ok`, survives the death of the
//! process from then on, and has not happened at all when the future is dropped early or returns an error, with the
//! one usual exception that an error may hide a success whose acknowledgement was lost. Lookups are by hash, so that
//! the time they take says nothing about a secret.

use std::{fmt, time::SystemTime};

use super::BoxFuture;
use crate::{
    BoxError,
    records::{AccountRecord, ClientRecord, CodeRecord, GrantRecord, PendingRecord, TokenHash},
};

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used now; a later try may succeed.
    #[error("the store cannot be used now")]
    Unavailable(#[source] BoxError),
    /// A record is there but makes no sense. A later try fares no better.
    #[error("a record of the store is damaged")]
    Damaged(#[source] BoxError),
}

/// The tokens that a code or a refresh token buys.
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// The access token.
    pub access: TokenHash,
    /// Until when the access token is honoured.
    pub access_expires_at: SystemTime,
    /// The refresh token.
    pub refresh: TokenHash,
    /// Until when the refresh token is honoured.
    pub refresh_expires_at: SystemTime,
}

/// What became of a code or refresh token that was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The new tokens are in the store.
    Issued,
    /// It had been used before, so that someone else may hold it: the grant, which is named here, has been ended.
    Reused(String),
    /// It is unknown or has expired.
    Gone,
}

/// All that a completed sign-in leaves behind.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// The user's upstream tokens. They replace what is there: the code exchange has killed the former refresh token.
    pub account: AccountRecord,
    /// The new grant.
    pub grant: GrantRecord,
    /// The code that buys its first tokens.
    pub code: CodeRecord,
}

/// Keeps registered clients.
pub trait ClientStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a client unless `cap` clients are there already. Says whether it was added.
    fn insert_client(&self, client: ClientRecord, cap: u32) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Finds a client.
    fn client<'a>(&'a self, client_id: &'a str) -> BoxFuture<'a, Result<Option<ClientRecord>, StoreError>>;
}

/// Keeps pending authorizations, grants, codes and tokens.
///
/// Each refresh token of a grant has a generation, and the grant knows the newest. A token of the newest generation,
/// when used, makes the next one. A token of the generation before it (the predecessor) is good too, and joins its
/// tokens to the newest generation without making another. Anything older has been used and superseded: it ends the
/// grant.
pub trait GrantStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a pending authorization unless `cap` are there that are still good. Says whether it was added.
    fn insert_pending(
        &self,
        pending: PendingRecord,
        cap: u32,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes a pending authorization out: it is found once at most, and not after its expiry.
    fn take_pending(
        &self,
        state: TokenHash,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Option<PendingRecord>, StoreError>>;

    /// Keeps the outcome of a sign-in. Above a limit per user the grants used least recently are ended; their names
    /// are returned.
    fn complete_sign_in(&self, sign_in: SignIn, now: SystemTime) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Finds a code, used or not, expired or not.
    fn code(&self, code: TokenHash) -> BoxFuture<'_, Result<Option<CodeRecord>, StoreError>>;

    /// Spends a code for tokens of generation one. A second use ends the grant (RFC 6749 section 4.1.2).
    fn spend_code(
        &self,
        code: TokenHash,
        tokens: NewTokens,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Spent, StoreError>>;

    /// Spends a refresh token for new tokens, by the rule above.
    fn spend_refresh(
        &self,
        refresh: TokenHash,
        tokens: NewTokens,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Spent, StoreError>>;

    /// Finds the grant of an access token that is still honoured.
    fn bearer(&self, access: TokenHash, now: SystemTime) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>>;

    /// Finds the grant of a token of either kind, expired or not.
    fn grant_of(&self, token: TokenHash) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>>;

    /// Ends a grant with its codes and tokens. Ending one that is not there is no error.
    fn end_grant<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Ends all grants of a user and forgets the account.
    fn end_user(&self, user: i64) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Keeps the sealed upstream tokens, one pair per user.
pub trait AccountStore: fmt::Debug + Send + Sync + 'static {
    /// Finds the account of a user.
    fn account(&self, user: i64) -> BoxFuture<'_, Result<Option<AccountRecord>, StoreError>>;

    /// Puts a new pair where the pair named `version` is, or where any pair of the user is if `version` is `None`.
    /// Says whether there was one.
    fn replace_account(&self, account: AccountRecord, version: Option<i64>) -> BoxFuture<'_, Result<bool, StoreError>>;
}

/// The whole store.
pub trait Store: ClientStore + GrantStore + AccountStore {
    /// Whether the store answers now.
    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets what has expired, and clients that have had no grant for long.
    fn purge(&self, now: SystemTime) -> BoxFuture<'_, Result<(), StoreError>>;
}
