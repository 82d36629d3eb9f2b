//! Codes and refresh tokens turned into tokens, by the rule of [`GrantStore`](crate::ports::GrantStore).

use std::time::SystemTime;

use sqlx::{Row as _, Sqlite, Transaction};

use super::{SqliteStore, grants, seconds};
use crate::{
    ids::GrantId,
    ports::{NewTokens, Spent, StoreError},
    records::TokenHash,
};

/// How many access tokens a grant may have. The oldest go first: a client that asks for more has lost them.
const ACCESS_TOKENS_PER_GRANT: i64 = 64;
/// How many families of refresh tokens a grant may have. Those go first that would expire first.
const FAMILIES_PER_GRANT: i64 = 16;
/// For how many generations a refresh token is remembered, so that its reuse is recognised. Older ones are just
/// unknown.
const GENERATIONS: i64 = 1000;

/// One family of refresh tokens.
#[derive(Clone, Copy)]
struct Family<'a> {
    grant: &'a GrantId,
    /// The hash of the code that began it.
    name: &'a [u8],
}

pub(super) async fn spend_code(
    store: &SqliteStore,
    code: TokenHash,
    new: NewTokens,
    now: SystemTime,
) -> Result<Spent, StoreError> {
    let mut change = store.begin().await?;
    let row = sqlx::query("SELECT grant_id, expires_at, used FROM oauth_codes WHERE code_hash = ?")
        .bind(code.0.to_vec())
        .fetch_optional(&mut *change)
        .await?;
    let Some(row) = row else {
        return Ok(Spent::Gone);
    };
    let grant: GrantId = row.try_get("grant_id")?;
    // Reuse comes before expiry: a code that is shown twice has leaked, however late.
    if row.try_get::<bool, _>("used")? {
        let spent = revoke_family(&mut change, grant, code).await?;
        change.commit().await?;
        return Ok(spent);
    }
    if row.try_get::<i64, _>("expires_at")? <= seconds(now) {
        return Ok(Spent::Gone);
    }
    sqlx::query("UPDATE oauth_codes SET used = 1 WHERE code_hash = ?")
        .bind(code.0.to_vec())
        .execute(&mut *change)
        .await?;
    let family = Family {
        grant: &grant,
        name: &code.0,
    };
    issue(&mut change, family, 1, &new, now).await?;
    sqlx::query(
        "DELETE FROM oauth_refresh_tokens WHERE grant_id = ?1 AND family NOT IN (
             SELECT family FROM oauth_refresh_tokens WHERE grant_id = ?1
             GROUP BY family ORDER BY max(expires_at) DESC, max(rowid) DESC LIMIT ?2)",
    )
    .bind(&grant)
    .bind(FAMILIES_PER_GRANT)
    .execute(&mut *change)
    .await?;
    let grant = grants::find(&mut change, &grant).await?;
    change.commit().await?;
    Ok(Spent::Issued(grant))
}

pub(super) async fn spend_refresh(
    store: &SqliteStore,
    refresh: TokenHash,
    new: NewTokens,
    now: SystemTime,
) -> Result<Spent, StoreError> {
    let mut change = store.begin().await?;
    let row = sqlx::query(
        "SELECT grant_id, family, generation AS own,
                (SELECT max(generation) FROM oauth_refresh_tokens AS f
                 WHERE f.grant_id = r.grant_id AND f.family = r.family) AS newest
         FROM oauth_refresh_tokens AS r
         WHERE token_hash = ? AND expires_at > ?",
    )
    .bind(refresh.0.to_vec())
    .bind(seconds(now))
    .fetch_optional(&mut *change)
    .await?;
    let Some(row) = row else {
        return Ok(Spent::Gone);
    };
    let grant: GrantId = row.try_get("grant_id")?;
    let own: i64 = row.try_get("own")?;
    let newest: i64 = row.try_get("newest")?;
    if own < newest - 1 {
        end_grant(&mut change, &grant).await?;
        change.commit().await?;
        return Ok(Spent::Reused(grant));
    }
    let family: Vec<u8> = row.try_get("family")?;
    let family = Family {
        grant: &grant,
        name: &family,
    };
    issue(&mut change, family, own + 1, &new, now).await?;
    let grant = grants::find(&mut change, &grant).await?;
    change.commit().await?;
    Ok(Spent::Issued(grant))
}

/// Revokes what a code has bought, and ends the grant if no other sign-in has left tokens or an unused code.
async fn revoke_family(
    change: &mut Transaction<'static, Sqlite>,
    grant: GrantId,
    code: TokenHash,
) -> Result<Spent, StoreError> {
    for statement in [
        "DELETE FROM oauth_access_tokens WHERE grant_id = ? AND family = ?",
        "DELETE FROM oauth_refresh_tokens WHERE grant_id = ? AND family = ?",
    ] {
        sqlx::query(statement)
            .bind(&grant)
            .bind(code.0.to_vec())
            .execute(&mut **change)
            .await?;
    }
    let goes_on: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM oauth_access_tokens WHERE grant_id = ?1)
             OR EXISTS (SELECT 1 FROM oauth_refresh_tokens WHERE grant_id = ?1)
             OR EXISTS (SELECT 1 FROM oauth_codes WHERE grant_id = ?1 AND used = 0)",
    )
    .bind(&grant)
    .fetch_one(&mut **change)
    .await?;
    if goes_on {
        // Other processes may remember the bearers.
        sqlx::query("INSERT INTO oauth_endings (grant_id, ended) VALUES (?, 0)")
            .bind(&grant)
            .execute(&mut **change)
            .await?;
        return Ok(Spent::Replayed(grant));
    }
    end_grant(change, &grant).await?;
    Ok(Spent::Reused(grant))
}

/// Ends a grant; its codes and tokens go with it.
pub(super) async fn end_grant(change: &mut Transaction<'static, Sqlite>, grant: &GrantId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM oauth_grants WHERE grant_id = ?")
        .bind(grant)
        .execute(&mut **change)
        .await?;
    Ok(())
}

/// Adds tokens of a generation to a family. The refresh token may be there already: the same predecessor has the same
/// successor.
async fn issue(
    change: &mut Transaction<'static, Sqlite>,
    Family { grant, name }: Family<'_>,
    generation: i64,
    new: &NewTokens,
    now: SystemTime,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE oauth_grants SET last_used_at = ? WHERE grant_id = ?")
        .bind(seconds(now))
        .bind(grant)
        .execute(&mut **change)
        .await?;
    sqlx::query(
        "UPDATE oauth_clients SET last_used_at = ?
         WHERE client_id = (SELECT client_id FROM oauth_grants WHERE grant_id = ?)",
    )
    .bind(seconds(now))
    .bind(grant)
    .execute(&mut **change)
    .await?;
    sqlx::query(
        "INSERT INTO oauth_refresh_tokens (token_hash, grant_id, family, generation, expires_at)
         VALUES (?, ?, ?, ?, ?) ON CONFLICT (token_hash) DO NOTHING",
    )
    .bind(new.refresh.0.to_vec())
    .bind(grant)
    .bind(name)
    .bind(generation)
    .bind(seconds(new.refresh_expires_at))
    .execute(&mut **change)
    .await?;
    sqlx::query("INSERT INTO oauth_access_tokens (token_hash, grant_id, family, expires_at) VALUES (?, ?, ?, ?)")
        .bind(new.access.0.to_vec())
        .bind(grant)
        .bind(name)
        .bind(seconds(new.access_expires_at))
        .execute(&mut **change)
        .await?;
    sqlx::query("DELETE FROM oauth_refresh_tokens WHERE grant_id = ? AND family = ? AND generation <= ?")
        .bind(grant)
        .bind(name)
        .bind(generation - GENERATIONS)
        .execute(&mut **change)
        .await?;
    sqlx::query(
        "DELETE FROM oauth_access_tokens WHERE token_hash IN (
             SELECT token_hash FROM oauth_access_tokens WHERE grant_id = ?
             ORDER BY expires_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
    )
    .bind(grant)
    .bind(ACCESS_TOKENS_PER_GRANT)
    .execute(&mut **change)
    .await?;
    Ok(())
}
