//! Pending sign-ins.

use std::time::SystemTime;

use sqlx::{FromRow, Row as _, sqlite::SqliteRow};

use super::{
    SqliteStore,
    columns::{damaged, seconds, time},
};
use crate::{
    ports::{PendingLookup, StoreError},
    records::{ClientRequest, PendingRecord, Purpose, TokenHash},
    secret,
};

pub(super) async fn insert(
    store: &SqliteStore,
    pending: PendingRecord,
    limit: u32,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let mut change = store.begin().await?;
    // Deleting expired rows here keeps the table at the limit, whenever the purge comes.
    execute!(change, "DELETE FROM oauth_pending WHERE expires_at <= ?", seconds(now));
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_pending")
        .fetch_one(&mut *change)
        .await?;
    if count >= i64::from(limit) {
        return Ok(false);
    }
    let request = match &pending.purpose {
        Purpose::Client(request) => Some(request),
        Purpose::Connections => None,
    };
    execute!(
        change,
        "INSERT INTO oauth_pending (state_hash, browser_hash, client_id, redirect_uri, client_state, code_challenge,
                                    scope, approved_by, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        pending.state,
        pending.browser,
        request.map(|request| &request.client_id),
        request.map(|request| &request.redirect_uri),
        request.and_then(|request| request.client_state.as_ref()),
        request.map(|request| &request.code_challenge),
        request.map(|request| &request.scope),
        request.and_then(|request| request.approved_by),
        seconds(pending.expires_at)
    );
    change.commit().await?;
    Ok(true)
}

pub(super) async fn take(
    store: &SqliteStore,
    state: TokenHash,
    browser: TokenHash,
    now: SystemTime,
) -> Result<PendingLookup, StoreError> {
    // An invented state must not hold up writers.
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM oauth_pending WHERE state_hash = ?)")
        .bind(state)
        .fetch_one(&store.readers)
        .await?;
    if !exists {
        return Ok(PendingLookup::NotFound);
    }
    let mut change = store.begin().await?;
    let pending: Option<PendingRecord> = sqlx::query_as(
        "DELETE FROM oauth_pending WHERE state_hash = ?
         RETURNING state_hash, browser_hash, client_id, redirect_uri, client_state, code_challenge, scope, approved_by,
                   expires_at",
    )
    .bind(state)
    .fetch_optional(&mut *change)
    .await?;
    let Some(pending) = pending.filter(|pending| pending.expires_at > now) else {
        return Ok(PendingLookup::NotFound);
    };
    if !secret::same(&pending.browser.0, &browser.0) {
        // Dropping the change undoes the deletion.
        return Ok(PendingLookup::OtherBrowser);
    }
    change.commit().await?;
    Ok(PendingLookup::Found(Box::new(pending)))
}

pub(super) async fn only(
    store: &SqliteStore,
    browser: TokenHash,
    now: SystemTime,
) -> Result<Option<PendingRecord>, StoreError> {
    let query = sqlx::query_as(
        "SELECT state_hash, browser_hash, client_id, redirect_uri, client_state, code_challenge, scope, approved_by,
                expires_at
         FROM oauth_pending WHERE browser_hash = ? AND expires_at > ? LIMIT 2",
    );
    let mut found: Vec<PendingRecord> = query.bind(browser).bind(seconds(now)).fetch_all(&store.readers).await?;
    Ok(found.pop().filter(|_| found.is_empty()))
}

impl FromRow<'_, SqliteRow> for PendingRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let required = |column: &str| {
            let value: Option<String> = row.try_get(column)?;
            value.ok_or_else(|| damaged("a pending sign-in of a client is incomplete"))
        };
        let purpose = match row.try_get("client_id")? {
            Some(client_id) => Purpose::Client(ClientRequest {
                client_id,
                redirect_uri: required("redirect_uri")?,
                client_state: row.try_get("client_state")?,
                code_challenge: required("code_challenge")?,
                scope: required("scope")?,
                approved_by: row.try_get("approved_by")?,
            }),
            None => Purpose::Connections,
        };
        Ok(Self {
            state: row.try_get("state_hash")?,
            browser: row.try_get("browser_hash")?,
            purpose,
            expires_at: time(row, "expires_at")?,
        })
    }
}
