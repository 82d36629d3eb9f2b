//! Sign-ins under way.

use sqlx::{Row as _, Sqlite, Transaction};

use super::{damaged, seconds, time, token_hash};
use crate::{
    ports::StoreError,
    records::{ClientRequest, PendingRecord, Purpose, TokenHash},
};

pub(super) async fn put(change: &mut Transaction<'static, Sqlite>, pending: PendingRecord) -> Result<(), StoreError> {
    let request = match pending.purpose {
        Purpose::Client(request) => Some(request),
        Purpose::Connections => None,
    };
    let approved_by = request.as_ref().and_then(|request| request.approved_by);
    let (client_id, redirect_uri, client_state, code_challenge, scope) = match request {
        Some(request) => (
            Some(request.client_id),
            Some(request.redirect_uri),
            request.client_state,
            Some(request.code_challenge),
            Some(request.scope),
        ),
        None => (None, None, None, None, None),
    };
    sqlx::query(
        "INSERT INTO oauth_pending (state_hash, browser_hash, client_id, redirect_uri, client_state, code_challenge,
                                    scope, approved_by, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(pending.state.0.to_vec())
    .bind(pending.browser.0.to_vec())
    .bind(client_id)
    .bind(redirect_uri)
    .bind(client_state)
    .bind(code_challenge)
    .bind(scope)
    .bind(approved_by)
    .bind(seconds(pending.expires_at))
    .execute(&mut **change)
    .await?;
    Ok(())
}

/// Takes a sign-in out, whether it is still good or not.
pub(super) async fn take(
    change: &mut Transaction<'static, Sqlite>,
    state: TokenHash,
) -> Result<Option<PendingRecord>, StoreError> {
    let row = sqlx::query(
        "DELETE FROM oauth_pending WHERE state_hash = ?
         RETURNING browser_hash, client_id, redirect_uri, client_state, code_challenge, scope, approved_by, expires_at",
    )
    .bind(state.0.to_vec())
    .fetch_optional(&mut **change)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let missing = || damaged("a sign-in of a client lacks a part");
    let purpose = match row.try_get("client_id")? {
        Some(client_id) => Purpose::Client(ClientRequest {
            client_id,
            redirect_uri: row.try_get::<Option<String>, _>("redirect_uri")?.ok_or_else(missing)?,
            client_state: row.try_get("client_state")?,
            code_challenge: row
                .try_get::<Option<String>, _>("code_challenge")?
                .ok_or_else(missing)?,
            scope: row.try_get::<Option<String>, _>("scope")?.ok_or_else(missing)?,
            approved_by: row.try_get("approved_by")?,
        }),
        None => Purpose::Connections,
    };
    let browser: Vec<u8> = row.try_get("browser_hash")?;
    Ok(Some(PendingRecord {
        state,
        browser: token_hash(&browser)?,
        purpose,
        expires_at: time(row.try_get("expires_at")?),
    }))
}
