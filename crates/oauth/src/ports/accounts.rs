//! The store of sealed upstream tokens.

use std::fmt;

use super::StoreFuture;
use crate::{
    ids::{ExchangeId, TokenVersion, UserId},
    records::AccountRecord,
};

/// The upstream tokens of a sign-in.
#[derive(Clone, Debug)]
pub struct SignInTokens {
    /// The tokens.
    pub account: AccountRecord,
    /// The exchange that yielded them. `None` for tokens that replace any others.
    pub exchange: Option<ExchangeId>,
}

/// The outcome of storing the tokens of a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairPlacement {
    /// The tokens have replaced the stored ones.
    Stored,
    /// Another sign-in has stored its tokens since the exchange began: only the upstream knows
    /// which are good.
    OrderUnknown,
    /// The user has no account.
    NoAccount,
}

/// Keeps the sealed upstream tokens, one pair per user.
pub trait AccountStore: fmt::Debug + Send + Sync + 'static {
    /// The users who have an account.
    fn account_users(&self) -> StoreFuture<'_, Vec<UserId>>;

    /// Finds the account of a user.
    fn account(&self, user: UserId) -> StoreFuture<'_, Option<AccountRecord>>;

    /// Replaces the tokens named `version`. Returns whether they were stored.
    fn replace_account(&self, account: AccountRecord, version: TokenVersion) -> StoreFuture<'_, bool>;

    /// Replaces the user's tokens with those of a sign-in. May be repeated with the same tokens
    /// after an error.
    fn place_account(&self, tokens: SignInTokens) -> StoreFuture<'_, PairPlacement>;
}
