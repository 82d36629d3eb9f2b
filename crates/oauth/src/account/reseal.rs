//! Accounts that an older key has sealed are sealed anew, so that the older key can go.

use super::Accounts;
use crate::{ports::StoreError, records::AccountRecord, seal::Binding};

impl Accounts {
    /// Seals anew what older keys have sealed, so that these can be taken out of the key file. Returns how many accounts
    /// that were. What cannot be opened is left as it is.
    pub(crate) async fn reseal(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        for user in self.store.account_users().await? {
            let Some(record) = self.store.account(user).await? else {
                continue;
            };
            if self.sealer.is_current(&record.access) && self.sealer.is_current(&record.refresh) {
                continue;
            }
            let access = self.sealer.open(&record.access, Binding::Access(user));
            let refresh = self.sealer.open(&record.refresh, Binding::Refresh(user));
            let (access, refresh) = match (access, refresh) {
                (Ok(access), Ok(refresh)) => (access, refresh),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(user, %error, "an account cannot be opened: its user will have to sign in again");
                    continue;
                }
            };
            let version = record.version;
            let resealed = AccountRecord {
                access: self.sealer.seal(&access, Binding::Access(user)),
                refresh: self.sealer.seal(&refresh, Binding::Refresh(user)),
                ..record
            };
            // A pair that was renewed in between is sealed with the newest key.
            if self.store.replace_account(resealed, version).await? {
                count += 1;
            }
        }
        Ok(count)
    }
}
