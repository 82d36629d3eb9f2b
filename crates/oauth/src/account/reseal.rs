//! Sealing accounts with the newest key, so that older keys can leave the key file.

use super::Accounts;
use crate::ports::StoreError;

impl Accounts {
    /// Seals the accounts with the newest key and returns their number. Accounts that cannot be
    /// opened stay as they are.
    pub(crate) async fn reseal(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        for user in self.store.account_users().await? {
            while let Some(record) = self.store.account(user).await? {
                let resealed = self.sealer.reseal_account(&record).unwrap_or_else(|error| {
                    let user = user.0;
                    tracing::error!(user, %error, "cannot open the user's Forgejo tokens: keep the older keys");
                    None
                });
                let Some(resealed) = resealed else {
                    break;
                };
                if self.store.replace_account(resealed, record.version).await? {
                    count += 1;
                    break;
                }
                // Renewed in between, perhaps by a process that does not have the newest key.
            }
        }
        Ok(count)
    }
}
