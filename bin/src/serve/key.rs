//! The key that seals Forgejo's tokens: from the configuration itself, or from its file.

use anyhow::{Context as _, Result};
use oauth::{
    ports::AccountStore as _,
    seal::{KeyFile, Sealer},
    sqlite::SqliteStore,
};

use crate::config::StoreConfig;

/// Takes the key. A key file is made for a database without accounts only: with a new key in the place of one that was
/// lost or not mounted, every account would be taken for forged, and its user's access ended.
pub(super) async fn sealer(config: &StoreConfig, store: &SqliteStore) -> Result<Sealer> {
    if let Some(sealer) = &config.key {
        return Ok(sealer.clone());
    }
    let (file, path) = (KeyFile::at(&config.key_file), config.key_file.display());
    let users = store.account_users().await.context("the accounts cannot be read")?;
    if users.is_empty() {
        return file
            .load_or_create()
            .with_context(|| format!("the key {path} cannot be used"));
    }
    file.load().with_context(|| {
        format!(
            "the key {path} cannot be used, and the database has accounts that were sealed with it: put it back (or \
             remove the database, and all users have to sign in again)"
        )
    })
}
