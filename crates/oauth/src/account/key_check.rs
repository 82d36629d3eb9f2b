//! The check that the keys are those of the database.
//!
//! With a wrong key of the right number nothing could be opened, and everything would look forged.
//! The store therefore has a value of each key, which only that key yields.

use std::collections::HashSet;

use super::Accounts;
use crate::{
    ports::StoreError,
    seal::{OpenError, Sealer},
};

/// The reason why the keys are not those of the database.
#[derive(Debug, thiserror::Error)]
pub enum KeyCheckError {
    /// A key has the number of another one, which has sealed what is in the database.
    #[error("key {0} is not the key with this number that the database was used with: restore that key")]
    WrongKey(u32),
    /// Accounts are sealed with a key that is missing.
    #[error("key {0} is missing, with which accounts in the database are sealed: restore it")]
    MissingKey(u32),
    /// The store failed.
    #[error("cannot read or write the values that check the keys")]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Checks the keys, and stores a value of those that are new. A database of an earlier version
    /// has no values yet: then an account of each key must open.
    pub(crate) async fn check_keys(&self) -> Result<(), KeyCheckError> {
        let (mut opened, mut forged) = (HashSet::new(), HashSet::new());
        for user in self.store.account_users().await? {
            let Some(record) = self.store.account(user).await? else {
                continue;
            };
            let number = Sealer::key_number(&record.refresh).unwrap_or_default();
            match self.sealer.open_refresh_token(&record) {
                Ok(_) => opened.insert(number),
                Err(OpenError::UnknownKey(number)) => return Err(KeyCheckError::MissingKey(number)),
                // The account may have been damaged: others of the same key tell.
                Err(OpenError::Forged) => forged.insert(number),
            };
        }
        let stored = self.store.key_checks().await?;
        for (number, value) in self.sealer.check_values() {
            let is_unused = opened.is_empty() && forged.is_empty();
            match stored.iter().find(|(known, _)| *known == number) {
                // Nothing is sealed with the key of that time.
                Some((_, known)) if known[..] != value && is_unused => {
                    self.store.set_key_check(number, value.to_vec()).await?;
                }
                Some((_, known)) if known[..] != value => return Err(KeyCheckError::WrongKey(number)),
                Some(_) => {}
                None if forged.contains(&number) && !opened.contains(&number) => {
                    return Err(KeyCheckError::WrongKey(number));
                }
                None => self.store.set_key_check(number, value.to_vec()).await?,
            }
        }
        Ok(())
    }
}
