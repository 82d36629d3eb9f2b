//! Sealed upstream tokens, each bound to its user and its kind.

use std::time::SystemTime;

use secrecy::{ExposeSecret as _, SecretString};

use super::{OpenError, Sealer};
use crate::{
    ids::{TokenVersion, UserId},
    ports::UpstreamTokens,
    records::AccountRecord,
    secret,
};

/// The kind of an upstream token. Its text is part of the associated data.
pub(super) const ACCESS: &str = "access";
pub(super) const REFRESH: &str = "refresh";

impl Sealer {
    /// Seals upstream tokens that a user has just obtained, under a new version.
    pub(crate) fn seal_account(&self, user: UserId, tokens: &UpstreamTokens, now: SystemTime) -> AccountRecord {
        AccountRecord {
            user,
            version: TokenVersion(i64::from_be_bytes(secret::random())),
            access: self.seal_token(&tokens.access_token, ACCESS, user),
            refresh: self.seal_token(&tokens.refresh_token, REFRESH, user),
            issued_at: now,
            expires_at: now + tokens.expires_in,
        }
    }

    pub(crate) fn open_access_token(&self, account: &AccountRecord) -> Result<SecretString, OpenError> {
        self.open_token(&account.access, ACCESS, account.user)
    }

    pub(crate) fn open_refresh_token(&self, account: &AccountRecord) -> Result<SecretString, OpenError> {
        self.open_token(&account.refresh, REFRESH, account.user)
    }

    /// Seals an account with the newest key. `None` if it already is.
    pub(crate) fn reseal_account(&self, account: &AccountRecord) -> Result<Option<AccountRecord>, OpenError> {
        if self.is_current(&account.access) && self.is_current(&account.refresh) {
            return Ok(None);
        }
        Ok(Some(AccountRecord {
            access: self.seal_token(&self.open_access_token(account)?, ACCESS, account.user),
            refresh: self.seal_token(&self.open_refresh_token(account)?, REFRESH, account.user),
            ..account.clone()
        }))
    }

    pub(super) fn seal_token(&self, token: &SecretString, kind: &str, user: UserId) -> Vec<u8> {
        self.seal_bytes(token.expose_secret().as_bytes(), &associated_data(kind, user))
    }

    pub(super) fn open_token(&self, sealed: &[u8], kind: &str, user: UserId) -> Result<SecretString, OpenError> {
        let opened = self.open_bytes(sealed, &associated_data(kind, user))?;
        String::from_utf8(opened)
            .map(SecretString::from)
            .map_err(|_| OpenError::Forged)
    }

    /// Reports whether the newest key sealed something.
    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        let (number, _) = self.current();
        Self::key_number(sealed) == Some(number)
    }
}

fn associated_data(kind: &str, user: UserId) -> Vec<u8> {
    format!("forgejo-mcp-broker account {kind} {user}").into_bytes()
}
