//! Registered clients, and the signed assertions that have been used.

use std::time::SystemTime;

use sqlx::{Executor, FromRow, Row as _, Sqlite, sqlite::SqliteRow};

use super::{
    Change, Query, SqliteStore,
    columns::{damaged, seconds, time},
};
use crate::{
    ids::ClientId,
    ports::{ClientInsertion, ClientStore, StoreError, StoreFuture},
    records::{ApplicationType, ClientAuth, ClientRecord, KeySource, TokenHash},
};

impl ClientStore for SqliteStore {
    fn insert_client(
        &self,
        client: ClientRecord,
        limit: u32,
        unused_since: SystemTime,
    ) -> StoreFuture<'_, ClientInsertion> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            if let Some(fingerprint) = client.fingerprint
                && let Some(existing) = find(&mut *change, None, Some(fingerprint)).await?
            {
                execute!(
                    change,
                    "UPDATE oauth_clients SET last_used_at = max(last_used_at, ?) WHERE client_id = ?",
                    seconds(client.created_at),
                    &existing.client_id
                );
                change.commit().await?;
                return Ok(ClientInsertion::Existing(Box::new(existing)));
            }
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_clients")
                .fetch_one(&mut *change)
                .await?;
            if count >= i64::from(limit) && !delete_unused(&mut change, unused_since).await? {
                return Ok(ClientInsertion::LimitReached);
            }
            let query = sqlx::query(
                "INSERT INTO oauth_clients (client_id, created_at, last_used_at, name, redirect_uris, auth_method,
                                            secret_hash, jwks, jwks_uri, registration_hash, fingerprint,
                                            application_type)
                 VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            );
            let query = query.bind(client.client_id.clone()).bind(seconds(client.created_at));
            bind_metadata(query, client)?.execute(&mut *change).await?;
            change.commit().await?;
            Ok(ClientInsertion::Inserted)
        })
    }

    fn update_client(&self, client: ClientRecord) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let query = sqlx::query(
                "UPDATE oauth_clients SET (name, redirect_uris, auth_method, secret_hash, jwks, jwks_uri,
                                           registration_hash, fingerprint, application_type)
                     = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 WHERE client_id = ?1",
            );
            let query = query.bind(client.client_id.clone());
            Ok(self.execute(bind_metadata(query, client)?).await? > 0)
        })
    }

    fn client<'a>(&'a self, client_id: &'a ClientId) -> StoreFuture<'a, Option<ClientRecord>> {
        Box::pin(find(&self.readers, Some(client_id), None))
    }

    fn client_by_fingerprint(&self, fingerprint: TokenHash) -> StoreFuture<'_, Option<ClientRecord>> {
        Box::pin(find(&self.readers, None, Some(fingerprint)))
    }

    fn use_assertion(&self, assertion: TokenHash, expires_at: SystemTime, now: SystemTime) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            execute!(
                change,
                "DELETE FROM oauth_assertions WHERE expires_at <= ?",
                seconds(now)
            );
            // Kept for one second longer, so that no assertion is forgotten before it is refused as
            // expired.
            let expires_at = seconds(expires_at).saturating_add(1);
            let inserted = execute!(
                change,
                "INSERT INTO oauth_assertions (assertion_hash, expires_at) VALUES (?, ?)
                 ON CONFLICT (assertion_hash) DO NOTHING",
                assertion,
                expires_at
            );
            change.commit().await?;
            Ok(inserted > 0)
        })
    }
}

/// Finds the client with an id or a fingerprint.
async fn find(
    executor: impl Executor<'_, Database = Sqlite>,
    client_id: Option<&ClientId>,
    fingerprint: Option<TokenHash>,
) -> Result<Option<ClientRecord>, StoreError> {
    let query = sqlx::query_as(
        "SELECT client_id, created_at, name, redirect_uris, auth_method, secret_hash, jwks, jwks_uri,
                registration_hash, fingerprint, application_type
         FROM oauth_clients WHERE client_id = ? OR fingerprint = ?",
    );
    Ok(query.bind(client_id).bind(fingerprint).fetch_optional(executor).await?)
}

/// Deletes the client without a grant that has been unused longest. Returns whether there was one.
async fn delete_unused(change: &mut Change, unused_since: SystemTime) -> Result<bool, StoreError> {
    let deleted = execute!(
        change,
        "DELETE FROM oauth_clients WHERE client_id = (
             SELECT client_id FROM oauth_clients AS c
             WHERE last_used_at < ?1
               AND NOT EXISTS (SELECT 1 FROM oauth_grants AS g WHERE g.client_id = c.client_id)
             ORDER BY last_used_at LIMIT 1)",
        seconds(unused_since)
    );
    Ok(deleted > 0)
}

/// Binds the columns that a client may change of itself.
fn bind_metadata(query: Query, client: ClientRecord) -> Result<Query, StoreError> {
    let redirect_uris =
        serde_json::to_string(&client.redirect_uris).map_err(|error| StoreError::Damaged(Box::new(error)))?;
    let (method, secret, jwks, jwks_uri) = match client.auth {
        ClientAuth::None => ("none", None, None, None),
        ClientAuth::Basic(hash) => ("client_secret_basic", Some(hash), None, None),
        ClientAuth::Post(hash) => ("client_secret_post", Some(hash), None, None),
        ClientAuth::PrivateKeyJwt(KeySource::Inline(jwks)) => ("private_key_jwt", None, Some(jwks), None),
        ClientAuth::PrivateKeyJwt(KeySource::Uri(uri)) => ("private_key_jwt", None, None, Some(uri)),
    };
    Ok(query
        .bind(client.name)
        .bind(redirect_uris)
        .bind(method)
        .bind(secret)
        .bind(jwks)
        .bind(jwks_uri)
        .bind(client.registration_token)
        .bind(client.fingerprint)
        .bind(client.application_type.map(ApplicationType::name)))
}

impl FromRow<'_, SqliteRow> for ClientRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let method: String = row.try_get("auth_method")?;
        let keys: (Option<String>, Option<String>) = (row.try_get("jwks")?, row.try_get("jwks_uri")?);
        let auth = match (method.as_str(), row.try_get("secret_hash")?, keys) {
            ("none", None, _) => ClientAuth::None,
            ("client_secret_basic", Some(hash), _) => ClientAuth::Basic(hash),
            ("client_secret_post", Some(hash), _) => ClientAuth::Post(hash),
            ("private_key_jwt", None, (Some(jwks), None)) => ClientAuth::PrivateKeyJwt(KeySource::Inline(jwks)),
            ("private_key_jwt", None, (None, Some(uri))) => ClientAuth::PrivateKeyJwt(KeySource::Uri(uri)),
            _ => return Err(damaged("the authentication method of a client is unknown")),
        };
        let redirect_uris: String = row.try_get("redirect_uris")?;
        let application_type: Option<String> = row.try_get("application_type")?;
        Ok(Self {
            client_id: row.try_get("client_id")?,
            name: row.try_get("name")?,
            redirect_uris: serde_json::from_str(&redirect_uris).map_err(damaged)?,
            auth,
            application_type: application_type.as_deref().and_then(ApplicationType::from_name),
            created_at: time(row, "created_at")?,
            domain: None,
            registration_token: row.try_get("registration_hash")?,
            fingerprint: row.try_get("fingerprint")?,
        })
    }
}
