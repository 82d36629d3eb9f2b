//! The key that seals Forgejo's tokens: from the configuration or from the key file.

use anyhow::{Context as _, Result};
use oauth::{
    ports::AccountStore as _,
    seal::{KeyFile, Sealer},
    sqlite::SqliteStore,
};

use crate::config::StoreConfig;

/// Loads the key. A key file is created only for a database without accounts: with a new key
/// instead of one that is lost or not mounted, every account would look forged, and its user would
/// lose access.
pub(super) async fn sealer(config: &StoreConfig, store: &SqliteStore) -> Result<Sealer> {
    if let Some(sealer) = &config.key {
        return Ok(sealer.clone());
    }
    let (file, path) = (KeyFile::at(&config.key_file), config.key_file.display());
    let users = store.account_users().await.context("cannot read the accounts")?;
    if users.is_empty() {
        return file
            .load_or_create()
            .with_context(|| format!("cannot use the key {path}"));
    }
    file.load().with_context(|| {
        format!(
            "cannot use the key {path}, with which accounts in the database are sealed: restore it (or remove the database; \
             then all users have to sign in again)"
        )
    })
}
