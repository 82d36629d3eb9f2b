//! Accounts that an older key has sealed are sealed anew, so that the older key can go.

use super::Accounts;
use crate::{ports::StoreError, records::AccountRecord, seal::Binding};

impl Accounts {
    /// Seals anew what older keys have sealed, so that these can be taken out of the key file. Returns how many accounts
    /// that were. What cannot be opened is left as it is.
    pub(crate) async fn reseal(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        for user in self.store.account_users().await? {
            while let Some(record) = self.store.account(user).await? {
                let version = record.version;
                let Some(resealed) = self.sealed_anew(&record) else {
                    break;
                };
                if self.store.replace_account(resealed, version).await? {
                    count += 1;
                    break;
                }
                // Renewed in between, perhaps by a process that does not have the newest key.
            }
        }
        Ok(count)
    }
    /// The account, sealed with the newest key; `None` if it is already, or cannot be opened.
    fn sealed_anew(&self, record: &AccountRecord) -> Option<AccountRecord> {
        if self.sealer.is_current(&record.access) && self.sealer.is_current(&record.refresh) {
            return None;
        }
        let user = record.user;
        let access = self.sealer.open(&record.access, Binding::Access(user));
        let refresh = self.sealer.open(&record.refresh, Binding::Refresh(user));
        match (access, refresh) {
            (Ok(access), Ok(refresh)) => Some(AccountRecord {
                access: self.sealer.seal(&access, Binding::Access(user)),
                refresh: self.sealer.seal(&refresh, Binding::Refresh(user)),
                ..record.clone()
            }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(user = user.0, %error, "an account cannot be opened, and is left as it is");
                None
            }
        }
    }
}
