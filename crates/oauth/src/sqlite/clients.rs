//! Registered clients, and the signed assertions that have been used.

use std::time::SystemTime;

use sqlx::{Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::{SqliteStore, damaged, seconds, time, token_hash};
use crate::{
    ids::{ClientId, GrantId},
    ports::{Admitted, BoxFuture, ClientStore, StoreError},
    records::{ClientAuth, ClientRecord, KeySource, TokenHash},
};

type Query = sqlx::query::Query<'static, Sqlite, <Sqlite as sqlx::Database>::Arguments>;

/// How a client authenticates, as it stands in its row.
struct AuthColumns {
    method: &'static str,
    secret: Option<Vec<u8>>,
    jwks: Option<String>,
    jwks_uri: Option<String>,
}

/// What a client may change of itself, in the order in which [`bind`] has it.
const METADATA: &str = "name, redirect_uris, auth_method, secret_hash, jwks, jwks_uri, registration_hash, fingerprint";

impl ClientStore for SqliteStore {
    fn insert_client(
        &self,
        client: ClientRecord,
        cap: u32,
        unused_since: SystemTime,
    ) -> BoxFuture<'_, Result<Admitted, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            if let Some(fingerprint) = client.fingerprint
                && let Some(known) = known(&mut change, fingerprint).await?
            {
                sqlx::query("UPDATE oauth_clients SET last_used_at = max(last_used_at, ?) WHERE client_id = ?")
                    .bind(seconds(client.created_at))
                    .bind(&known.client_id)
                    .execute(&mut *change)
                    .await?;
                change.commit().await?;
                return Ok(Admitted::Known(Box::new(known)));
            }
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_clients")
                .fetch_one(&mut *change)
                .await?;
            if count >= i64::from(cap) && !make_room(&mut change, unused_since).await? {
                return Ok(Admitted::Full);
            }
            insert(&mut change, client).await?;
            change.commit().await?;
            Ok(Admitted::New)
        })
    }

    fn update_client(&self, client: ClientRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let sql = format!("UPDATE oauth_clients SET ({METADATA}) = (?, ?, ?, ?, ?, ?, ?, ?) WHERE client_id = ?");
            let mut change = self.begin().await?;
            let client_id = client.client_id.clone();
            let updated = bind(sqlx::query(sqlx::AssertSqlSafe(sql)), client)?
                .bind(client_id)
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(updated.rows_affected() > 0)
        })
    }

    fn delete_client<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<Vec<GrantId>, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let ended = sqlx::query_scalar("DELETE FROM oauth_grants WHERE client_id = ? RETURNING grant_id")
                .bind(client_id)
                .fetch_all(&mut *change)
                .await?;
            for statement in [
                "DELETE FROM oauth_pending WHERE client_id = ?",
                "DELETE FROM oauth_clients WHERE client_id = ?",
            ] {
                sqlx::query(statement).bind(client_id).execute(&mut *change).await?;
            }
            change.commit().await?;
            Ok(ended)
        })
    }

    fn use_assertion(
        &self,
        assertion: TokenHash,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            sqlx::query("DELETE FROM oauth_assertions WHERE expires_at <= ?")
                .bind(seconds(now))
                .execute(&mut *change)
                .await?;
            let inserted = sqlx::query(
                "INSERT INTO oauth_assertions (assertion_hash, expires_at) VALUES (?, ?)
                 ON CONFLICT (assertion_hash) DO NOTHING",
            )
            .bind(assertion.0.to_vec())
            // A second later than the cut, so that what is refused as expired and what is forgotten do not overlap.
            .bind(seconds(expires_at).saturating_add(1))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(inserted.rows_affected() > 0)
        })
    }

    fn client_like(&self, fingerprint: TokenHash) -> BoxFuture<'_, Result<Option<ClientRecord>, StoreError>> {
        Box::pin(async move {
            let row = select("fingerprint")
                .bind(fingerprint.0.to_vec())
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(client_of_row).transpose()
        })
    }

    fn client<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<Option<ClientRecord>, StoreError>> {
        Box::pin(async move {
            let row = select("client_id")
                .bind(client_id)
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(client_of_row).transpose()
        })
    }
}

async fn known(
    change: &mut Transaction<'static, Sqlite>,
    fingerprint: TokenHash,
) -> Result<Option<ClientRecord>, StoreError> {
    let row = select("fingerprint")
        .bind(fingerprint.0.to_vec())
        .fetch_optional(&mut **change)
        .await?;
    row.as_ref().map(client_of_row).transpose()
}

/// Forgets the client that has been unused longest. Says whether there was one that may go.
async fn make_room(change: &mut Transaction<'static, Sqlite>, unused_since: SystemTime) -> Result<bool, StoreError> {
    let deleted = sqlx::query(
        "DELETE FROM oauth_clients WHERE client_id = (
             SELECT client_id FROM oauth_clients AS c
             WHERE last_used_at < ?1
               AND NOT EXISTS (SELECT 1 FROM oauth_grants AS g WHERE g.client_id = c.client_id)
             ORDER BY last_used_at LIMIT 1)",
    )
    .bind(seconds(unused_since))
    .execute(&mut **change)
    .await?;
    Ok(deleted.rows_affected() > 0)
}

async fn insert(change: &mut Transaction<'static, Sqlite>, client: ClientRecord) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO oauth_clients (client_id, created_at, last_used_at, {METADATA})
         VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(client.client_id.clone())
        .bind(seconds(client.created_at));
    bind(query, client)?.execute(&mut **change).await?;
    Ok(())
}

/// Looks for the client that has a value in a column.
fn select(column: &'static str) -> Query {
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT client_id, created_at, {METADATA} FROM oauth_clients WHERE {column} = ?"
    )))
}

/// Binds [`METADATA`].
fn bind(query: Query, client: ClientRecord) -> Result<Query, StoreError> {
    let auth = AuthColumns::of(client.auth);
    Ok(query
        .bind(client.name)
        .bind(json(&client.redirect_uris)?)
        .bind(auth.method)
        .bind(auth.secret)
        .bind(auth.jwks)
        .bind(auth.jwks_uri)
        .bind(client.registration_token.map(|hash| hash.0.to_vec()))
        .bind(client.fingerprint.map(|hash| hash.0.to_vec())))
}

fn json(redirect_uris: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(redirect_uris).map_err(|error| StoreError::Damaged(Box::new(error)))
}

fn client_of_row(row: &SqliteRow) -> Result<ClientRecord, StoreError> {
    let redirect_uris: String = row.try_get("redirect_uris")?;
    let method: String = row.try_get("auth_method")?;
    let hash = |column: &str| -> Result<Option<TokenHash>, StoreError> {
        let bytes: Option<Vec<u8>> = row.try_get(column)?;
        bytes.as_deref().map(token_hash).transpose()
    };
    let keys: (Option<String>, Option<String>) = (row.try_get("jwks")?, row.try_get("jwks_uri")?);
    let auth = match (method.as_str(), hash("secret_hash")?, keys) {
        ("none", None, _) => ClientAuth::None,
        ("client_secret_basic", Some(hash), _) => ClientAuth::Basic(hash),
        ("client_secret_post", Some(hash), _) => ClientAuth::Post(hash),
        ("private_key_jwt", None, (Some(jwks), None)) => ClientAuth::PrivateKeyJwt(KeySource::Inline(jwks)),
        ("private_key_jwt", None, (None, Some(uri))) => ClientAuth::PrivateKeyJwt(KeySource::Uri(uri)),
        _ => return Err(damaged("a client has an unknown way to authenticate")),
    };
    Ok(ClientRecord {
        client_id: row.try_get("client_id")?,
        name: row.try_get("name")?,
        redirect_uris: serde_json::from_str(&redirect_uris).map_err(|error| StoreError::Damaged(Box::new(error)))?,
        auth,
        created_at: time(row.try_get("created_at")?),
        domain: None,
        registration_token: hash("registration_hash")?,
        fingerprint: hash("fingerprint")?,
    })
}

impl AuthColumns {
    fn of(auth: ClientAuth) -> Self {
        let (method, secret, jwks, jwks_uri) = match auth {
            ClientAuth::None => ("none", None, None, None),
            ClientAuth::Basic(hash) => ("client_secret_basic", Some(hash), None, None),
            ClientAuth::Post(hash) => ("client_secret_post", Some(hash), None, None),
            ClientAuth::PrivateKeyJwt(KeySource::Inline(jwks)) => ("private_key_jwt", None, Some(jwks), None),
            ClientAuth::PrivateKeyJwt(KeySource::Uri(uri)) => ("private_key_jwt", None, None, Some(uri)),
        };
        Self {
            method,
            secret: secret.map(|hash| hash.0.to_vec()),
            jwks,
            jwks_uri,
        }
    }
}
