//! Registered clients.

use sqlx::Row as _;

use super::{SqliteStore, damaged, seconds, time, token_hash};
use crate::{
    ports::{BoxFuture, ClientStore, StoreError},
    records::{ClientAuth, ClientRecord},
};

impl ClientStore for SqliteStore {
    fn insert_client(&self, client: ClientRecord, cap: u32) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let redirect_uris =
                serde_json::to_string(&client.redirect_uris).map_err(|error| StoreError::Damaged(Box::new(error)))?;
            let (method, secret) = match client.auth {
                ClientAuth::None => ("none", None),
                ClientAuth::Basic(hash) => ("client_secret_basic", Some(hash)),
                ClientAuth::Post(hash) => ("client_secret_post", Some(hash)),
            };
            let mut change = self.begin().await?;
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_clients")
                .fetch_one(&mut *change)
                .await?;
            if count >= i64::from(cap) {
                return Ok(false);
            }
            sqlx::query(
                "INSERT INTO oauth_clients
                     (client_id, name, redirect_uris, auth_method, secret_hash, created_at, last_used_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
            )
            .bind(client.client_id)
            .bind(client.name)
            .bind(redirect_uris)
            .bind(method)
            .bind(secret.map(|hash| hash.0.to_vec()))
            .bind(seconds(client.created_at))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(true)
        })
    }

    fn client<'a>(&'a self, client_id: &'a str) -> BoxFuture<'a, Result<Option<ClientRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT name, redirect_uris, auth_method, secret_hash, created_at
                 FROM oauth_clients WHERE client_id = ?",
            )
            .bind(client_id)
            .fetch_optional(&self.pool)
            .await?;
            let Some(row) = row else {
                return Ok(None);
            };
            let redirect_uris: String = row.try_get("redirect_uris")?;
            let method: String = row.try_get("auth_method")?;
            let secret: Option<Vec<u8>> = row.try_get("secret_hash")?;
            let secret = secret.as_deref().map(token_hash).transpose()?;
            let auth = match (method.as_str(), secret) {
                ("none", None) => ClientAuth::None,
                ("client_secret_basic", Some(hash)) => ClientAuth::Basic(hash),
                ("client_secret_post", Some(hash)) => ClientAuth::Post(hash),
                _ => return Err(damaged("a client has an unknown way to authenticate")),
            };
            Ok(Some(ClientRecord {
                client_id: client_id.to_owned(),
                name: row.try_get("name")?,
                redirect_uris: serde_json::from_str(&redirect_uris)
                    .map_err(|error| StoreError::Damaged(Box::new(error)))?,
                auth,
                created_at: time(row.try_get("created_at")?),
            }))
        })
    }
}
