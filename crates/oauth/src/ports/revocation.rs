//! The changes of the store that can end access, and the log of what has ended.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{SignInTokens, StoreFuture};
use crate::{
    ids::{ClientId, ExchangeId, GrantId, LeaseOwner, TokenVersion, UserId},
    records::{AccountRecord, CodeRecord, GrantRecord, TokenHash},
};

/// The tokens for which a code or a refresh token is redeemed.
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// The access token.
    pub access: TokenHash,
    /// The end of the access token.
    pub access_expires_at: SystemTime,
    /// The refresh token.
    pub refresh: TokenHash,
    /// The end of the refresh token.
    pub refresh_expires_at: SystemTime,
}

/// A code or refresh token that a client presents.
#[derive(Clone, Copy, Debug)]
pub enum PresentedToken {
    /// An authorization code.
    Code(TokenHash),
    /// A refresh token.
    Refresh {
        /// Its hash.
        token: TokenHash,
        /// The time from the issue of its successor on for which it is good. `None`: until its
        /// successor is used.
        grace: Option<Duration>,
    },
}

/// The outcome of presenting a code or refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// The new tokens are in the store. This is their grant.
    Issued(GrantRecord),
    /// The refresh token is the predecessor of the newest one, whose family has more tokens now.
    Reissued(GrantRecord),
    /// The code or token had been used before, so that someone else may hold it. Its family was the
    /// last one of this grant, which has ended.
    GrantRevoked(GrantId),
    /// The code or token had been used before: the tokens of its family have been revoked. This
    /// grant goes on with its other families.
    FamilyRevoked(GrantId),
    /// The code or token is unknown or has expired.
    Invalid,
}

/// Everything that a completed sign-in stores.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// The user's upstream tokens. They replace the stored ones: the code exchange has invalidated
    /// the former refresh token. `None` if the stored ones are newer.
    pub tokens: Option<SignInTokens>,
    /// The code that begins the grant's next token family. An existing grant of the user for the
    /// client goes on under its own id instead of the code's.
    pub code: CodeRecord,
}

/// The outcome of a completed sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The grant: a new one, or the existing one.
    pub grant: GrantId,
    /// The grants that have ended because the user has too many.
    pub displaced: Vec<GrantId>,
}

/// Upstream tokens that the upstream has refused.
#[derive(Clone, Copy, Debug)]
pub struct RefusedTokens {
    /// The user.
    pub user: UserId,
    /// The version of the tokens. `None`: there are no tokens.
    pub version: Option<TokenVersion>,
    /// The process that has presented them.
    pub owner: LeaseOwner,
    /// The newest exchange that may have invalidated them. `None`: any exchange may have.
    pub newest: Option<ExchangeId>,
}

/// The outcome for a user whose tokens the upstream has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalOutcome {
    /// All grants of the user have ended, and the account is gone.
    Revoked,
    /// Nothing has ended: other tokens than the refused ones are stored.
    Replaced(Box<AccountRecord>),
    /// Nothing has ended: a running exchange may have invalidated the tokens. This is the newest
    /// exchange that had begun at the first call.
    ExchangeRunning(ExchangeId),
    /// Nothing has ended: another owner holds the lease of the account.
    LeaseHeld,
}

/// A part of the log of revocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationBatch {
    /// The position in the log after this batch, from which the next one is read.
    pub position: i64,
    /// `true` if earlier entries have been dropped from the log.
    pub truncated: bool,
    /// The entries, in order.
    pub revocations: Vec<Revocation>,
}

/// One entry in the log of revocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The grant.
    pub grant: GrantId,
    /// `true` if the whole grant has ended. Otherwise only some of its tokens have.
    pub whole_grant: bool,
}

/// Makes the changes that can end access, and remembers what has ended.
///
/// Refresh tokens come in families: the exchange of a code begins one. Each refresh token has a
/// generation in its family. A token of the newest generation, when used, makes the next one. A
/// token of the generation before it (the predecessor) is good too, and adds its tokens to the
/// newest generation without making another, within its grace. Anything older has been used and
/// superseded: it ends its family. What happens in one family ends no other one, and the last
/// family ends the grant.
///
/// The rest of the crate calls these through [`Revocations`](crate::revocation::Revocations), which
/// reports what has ended.
pub trait RevocationStore: fmt::Debug + Send + Sync + 'static {
    /// Stores the outcome of a sign-in. Above a limit per user the grants used least recently end.
    /// May be repeated with the same sign-in after an error. `None`, and nothing is stored, where
    /// [`AccountStore::place_account`](super::AccountStore::place_account) returns `false`.
    fn complete_sign_in(&self, sign_in: SignIn, now: SystemTime) -> StoreFuture<'_, Option<SignedIn>>;

    /// Redeems a code for tokens of generation one, or a refresh token by the rule above. A second
    /// use of a code revokes the tokens of the first (RFC 6749 section 4.1.2).
    fn redeem(&self, presented: PresentedToken, tokens: NewTokens, now: SystemTime) -> StoreFuture<'_, Redemption>;

    /// Ends the family of an access token or refresh token, which may have expired or been replaced
    /// (RFC 7009 section 2.1). `None` for a token that no family has.
    fn end_family(&self, token: TokenHash) -> StoreFuture<'_, Option<Revocation>>;

    /// Deletes a client and ends its grants, which are returned.
    fn delete_client<'a>(&'a self, client_id: &'a ClientId) -> StoreFuture<'a, Vec<GrantId>>;

    /// Stores the login that a user has now with the user's grants. Returns whether it is another.
    fn set_login<'a>(&'a self, user: UserId, login: &'a str) -> StoreFuture<'a, bool>;

    /// Ends a grant with its codes and tokens. Ending a grant that does not exist is no error.
    fn end_grant<'a>(&'a self, grant: &'a GrantId) -> StoreFuture<'a, ()>;

    /// Ends all grants of a user and deletes the account.
    fn end_user(&self, user: UserId) -> StoreFuture<'_, ()>;

    /// Ends the user of refused tokens, unless other tokens are stored, another than `owner` holds
    /// the lease of the account, or an exchange that began no later than `newest` is running.
    /// Repeated calls while an exchange is running do not wait for a writer.
    fn end_refused_user(&self, refused: RefusedTokens, now: SystemTime) -> StoreFuture<'_, RefusalOutcome>;

    /// Reads the log of revocations after a position, in part if it is long. `None`: reads only the
    /// current position.
    fn revocations(&self, after: Option<i64>) -> StoreFuture<'_, RevocationBatch>;
}
