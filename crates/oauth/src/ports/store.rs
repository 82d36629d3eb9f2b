//! The store: clients, grants with their codes and tokens, accounts.
//!
//! Every method is one transaction: it has happened as a whole when it returns `Ok`, survives the death of the
//! process from then on, and has not happened at all when the future is dropped early or returns an error, with the
//! one usual exception that an error may hide a success whose acknowledgement was lost. Lookups are by hash, so that
//! the time they take says nothing about a secret.

use std::{fmt, time::SystemTime};

use super::{BoxFuture, ProcessStore};
use crate::{
    BoxError,
    ids::{ClientId, ExchangeId, GrantId, PairId, UserId},
    records::{
        AccountRecord, BearerRecord, ClientRecord, CodeRecord, GrantRecord, GrantSummary, PendingRecord, TokenHash,
    },
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
    /// The new tokens are in the store. This is their grant.
    Issued(GrantRecord),
    /// It had been used before, so that someone else may hold it: the grant, which is named here, has been ended.
    Reused(GrantId),
    /// The code had been used before: the tokens that it bought have been revoked. The grant, which is named here, goes on
    /// with those of other sign-ins.
    Replayed(GrantId),
    /// It is unknown or has expired.
    Gone,
}

/// All that a completed sign-in leaves behind.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// The user's upstream tokens. They replace what is there: the code exchange has killed the former refresh token.
    /// `None` if what is there is newer.
    pub pair: Option<SignedInPair>,
    /// The grant. If the user has one for this client, that one goes on in its place, under its own name.
    pub grant: GrantRecord,
    /// The code that buys its first tokens.
    pub code: CodeRecord,
}

/// The upstream tokens of a sign-in.
#[derive(Clone, Debug)]
pub struct SignedInPair {
    /// The tokens.
    pub account: AccountRecord,
    /// The exchange that yielded them. `None` for tokens that are to replace whatever is there.
    pub exchange: Option<ExchangeId>,
}

/// What became of the tokens of a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// They are in the place of what was there.
    Kept,
    /// Another sign-in has put its tokens there since the exchange began: whose are good is for the upstream to say.
    Unclear,
    /// The user has no account.
    NoAccount,
}

/// What a completed sign-in has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The name of the grant: a new one, or the one that goes on.
    pub grant: GrantId,
    /// The grants that have been ended because the user has too many.
    pub displaced: Vec<GrantId>,
}

/// What became of a pending sign-in that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This is it. It is not in the store any more.
    Found(Box<PendingRecord>),
    /// It began in another browser, and stays.
    OtherBrowser,
    /// It is unknown or has expired.
    Gone,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The client is new.
    New,
    /// A client with the same fingerprint is there, and counts as used now.
    Known(Box<ClientRecord>),
    /// There are too many clients, and none that could make room.
    Full,
}

/// Keeps registered clients.
pub trait ClientStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a client, unless one with its fingerprint is there or `cap` clients are. At the cap, the client that has been
    /// unused longest makes room, if it has no grant and was last used before `unused_since`.
    fn insert_client(
        &self,
        client: ClientRecord,
        cap: u32,
        unused_since: SystemTime,
    ) -> BoxFuture<'_, Result<Admitted, StoreError>>;

    /// Puts new metadata in the place of a client's. Says whether there was one.
    fn update_client(&self, client: ClientRecord) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Forgets a client and ends its grants, whose names are returned.
    fn delete_client<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<Vec<GrantId>, StoreError>>;

    /// Notes that a signed assertion is used now. Says whether this is the first time: `false` until it has expired.
    fn use_assertion(
        &self,
        assertion: TokenHash,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Finds the client of a fingerprint.
    fn client_like(&self, fingerprint: TokenHash) -> BoxFuture<'_, Result<Option<ClientRecord>, StoreError>>;

    /// Finds a client.
    fn client<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<Option<ClientRecord>, StoreError>>;
}

/// Keeps pending authorizations, grants, codes and tokens.
///
/// Refresh tokens come in families: the exchange of a code begins one. Each refresh token has a generation in its
/// family. A token of the newest generation, when used, makes the next one. A token of the generation before it (the
/// predecessor) is good too, and joins its tokens to the newest generation without making another. Anything older has
/// been used and superseded: it ends the grant.
pub trait GrantStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a pending sign-in unless there are `cap` that are still good. Says whether it was added.
    fn insert_pending(
        &self,
        pending: PendingRecord,
        cap: u32,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes a pending sign-in out: it is found once at most, not after its expiry, and by the browser it began in.
    fn take_pending(
        &self,
        state: TokenHash,
        browser: TokenHash,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Taken, StoreError>>;

    /// Keeps the outcome of a sign-in. Above a limit per user the grants used least recently are ended. May be repeated
    /// with the same sign-in after an error. `None`, and nothing is kept, where the place of its tokens is
    /// [`Placed::Unclear`].
    fn complete_sign_in(&self, sign_in: SignIn, now: SystemTime)
    -> BoxFuture<'_, Result<Option<SignedIn>, StoreError>>;

    /// Finds a code, used or not, expired or not.
    fn code(&self, code: TokenHash) -> BoxFuture<'_, Result<Option<CodeRecord>, StoreError>>;

    /// Spends a code for tokens of generation one. A second use revokes what the first has bought (RFC 6749 section 4.1.2),
    /// and ends the grant if nothing else is left of it.
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

    /// Finds an access token that is still honoured, with its grant.
    fn bearer(&self, access: TokenHash, now: SystemTime) -> BoxFuture<'_, Result<Option<BearerRecord>, StoreError>>;

    /// Notes when grants were used, and with them their clients. Those that are gone are left out.
    fn record_uses(&self, uses: Vec<(GrantId, SystemTime)>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Finds the grant of a token of either kind, expired or not.
    fn grant_of(&self, token: TokenHash) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>>;

    /// The grants of a user, the one used last first. There is a limit to how many a user has.
    fn grants_of(&self, user: UserId) -> BoxFuture<'_, Result<Vec<GrantSummary>, StoreError>>;

    /// Ends a grant with its codes and tokens. Ending one that is not there is no error.
    fn end_grant<'a>(&'a self, grant: &'a GrantId) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Ends all grants of a user and forgets the account.
    fn end_user(&self, user: UserId) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Keeps the sealed upstream tokens, one pair per user.
pub trait AccountStore: fmt::Debug + Send + Sync + 'static {
    /// The users who have an account.
    fn account_users(&self) -> BoxFuture<'_, Result<Vec<UserId>, StoreError>>;

    /// Finds the account of a user.
    fn account(&self, user: UserId) -> BoxFuture<'_, Result<Option<AccountRecord>, StoreError>>;

    /// Puts a new pair where the pair named `version` is. Says whether there was one.
    fn replace_account(&self, account: AccountRecord, version: PairId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Puts the tokens of a sign-in where the user's are. May be repeated with the same tokens after an error.
    fn place_account(&self, pair: SignedInPair) -> BoxFuture<'_, Result<Placed, StoreError>>;
}

/// The whole store.
pub trait Store: ClientStore + GrantStore + AccountStore + ProcessStore {
    /// Whether the store answers now.
    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets what has expired, and clients that have had no grant for long.
    fn purge(&self, now: SystemTime) -> BoxFuture<'_, Result<(), StoreError>>;
}
