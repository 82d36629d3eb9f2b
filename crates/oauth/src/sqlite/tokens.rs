//! Codes and refresh tokens redeemed for tokens, by the rule of
//! [`RevocationStore`](crate::ports::RevocationStore).

use std::time::{Duration, SystemTime};

use super::{Change, columns::seconds, grants};
use crate::{
    ids::GrantId,
    ports::{NewTokens, Redemption, Revocation, StoreError},
    records::TokenHash,
};

/// One family of refresh tokens, named after the hash of the code that began it. Tokens from before
/// families have the empty name.
#[derive(Clone, Debug)]
struct FamilyId(Vec<u8>);

stored_as_inner_value!(FamilyId(Vec<u8>));

/// The largest number of access tokens of a grant. The oldest are deleted first: a client that asks
/// for more has lost them.
const MAX_ACCESS_TOKENS_PER_GRANT: i64 = 64;
/// The largest number of refresh token families of a grant. The families that expire first are
/// deleted first.
const MAX_FAMILIES_PER_GRANT: i64 = 16;
/// The number of generations for which a refresh token is remembered, so that its reuse is
/// recognized. An older one is unknown.
const REMEMBERED_GENERATIONS: i64 = 1000;

pub(super) async fn redeem_code(
    change: &mut Change,
    code: TokenHash,
    new: &NewTokens,
    now: SystemTime,
) -> Result<Redemption, StoreError> {
    let query = sqlx::query_as("SELECT grant_id, expires_at, used FROM oauth_codes WHERE code_hash = ?").bind(code);
    let found: Option<(GrantId, i64, bool)> = query.fetch_optional(&mut **change).await?;
    let Some((grant, expires_at, used)) = found else {
        return Ok(Redemption::Invalid);
    };
    let family = FamilyId(code.0.to_vec());
    // Reuse comes before expiry: a code that is presented twice has leaked, however late.
    if used {
        return Ok(revoke_family(change, grant, &family).await?.into());
    }
    if expires_at <= seconds(now) {
        return Ok(Redemption::Invalid);
    }
    execute!(change, "UPDATE oauth_codes SET used = 1 WHERE code_hash = ?", code);
    issue(change, &grant, &family, 1, new, now).await?;
    execute!(
        change,
        "DELETE FROM oauth_refresh_tokens WHERE grant_id = ?1 AND family NOT IN (
             SELECT family FROM oauth_refresh_tokens WHERE grant_id = ?1
             GROUP BY family ORDER BY max(expires_at) DESC, max(rowid) DESC LIMIT ?2)",
        &grant,
        MAX_FAMILIES_PER_GRANT
    );
    Ok(Redemption::Issued(grants::find(change, &grant).await?))
}

pub(super) async fn redeem_refresh_token(
    change: &mut Change,
    token: TokenHash,
    grace: Option<Duration>,
    new: &NewTokens,
    now: SystemTime,
) -> Result<Redemption, StoreError> {
    let query = sqlx::query_as(
        "SELECT r.grant_id, r.family, r.generation, f.generation, f.issued_at
         FROM oauth_refresh_tokens AS r
         JOIN oauth_refresh_tokens AS f ON f.grant_id = r.grant_id AND f.family = r.family
         WHERE r.token_hash = ? AND r.expires_at > ?
         ORDER BY f.generation DESC LIMIT 1",
    );
    let found: Option<(GrantId, FamilyId, i64, i64, i64)> = query
        .bind(token)
        .bind(seconds(now))
        .fetch_optional(&mut **change)
        .await?;
    let Some((grant, family, own, newest, newest_at)) = found else {
        return Ok(Redemption::Invalid);
    };
    let is_predecessor = own == newest - 1;
    let grace_is_over = grace.is_some_and(|grace| {
        let end = newest_at.saturating_add_unsigned(grace.as_secs());
        is_predecessor && newest_at > 0 && end < seconds(now)
    });
    if own < newest - 1 || grace_is_over {
        return Ok(revoke_family(change, grant, &family).await?.into());
    }
    issue(change, &grant, &family, own + 1, new, now).await?;
    let grant = grants::find(change, &grant).await?;
    Ok(if is_predecessor {
        Redemption::Reissued(grant)
    } else {
        Redemption::Issued(grant)
    })
}

pub(super) async fn end_family_of(change: &mut Change, token: TokenHash) -> Result<Option<Revocation>, StoreError> {
    let query = sqlx::query_as(
        "SELECT grant_id, family FROM oauth_access_tokens WHERE token_hash = ?1
         UNION SELECT grant_id, family FROM oauth_refresh_tokens WHERE token_hash = ?1",
    );
    let found: Option<(GrantId, FamilyId)> = query.bind(token).fetch_optional(&mut **change).await?;
    match found {
        Some((grant, family)) => revoke_family(change, grant, &family).await.map(Some),
        None => Ok(None),
    }
}

/// Revokes the tokens of a family, and ends the grant if no other sign-in has left tokens or an
/// unused code.
async fn revoke_family(change: &mut Change, grant: GrantId, family: &FamilyId) -> Result<Revocation, StoreError> {
    for statement in [
        "DELETE FROM oauth_access_tokens WHERE grant_id = ? AND family = ?",
        "DELETE FROM oauth_refresh_tokens WHERE grant_id = ? AND family = ?",
    ] {
        execute!(change, statement, &grant, family);
    }
    let goes_on: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM oauth_access_tokens WHERE grant_id = ?1)
             OR EXISTS (SELECT 1 FROM oauth_refresh_tokens WHERE grant_id = ?1)
             OR EXISTS (SELECT 1 FROM oauth_codes WHERE grant_id = ?1 AND used = 0)",
    )
    .bind(&grant)
    .fetch_one(&mut **change)
    .await?;
    if !goes_on {
        grants::delete(change, &grant).await?;
        return Ok(Revocation {
            grant,
            whole_grant: true,
        });
    }
    // Other processes may have cached the access tokens.
    execute!(
        change,
        "INSERT INTO oauth_endings (grant_id, ended) VALUES (?, 0)",
        &grant
    );
    Ok(Revocation {
        grant,
        whole_grant: false,
    })
}

impl From<Revocation> for Redemption {
    fn from(revocation: Revocation) -> Self {
        if revocation.whole_grant {
            Self::GrantRevoked(revocation.grant)
        } else {
            Self::FamilyRevoked(revocation.grant)
        }
    }
}

/// Adds tokens of a generation to a family. The refresh token may exist: the same predecessor has
/// the same successor.
async fn issue(
    change: &mut Change,
    grant: &GrantId,
    family: &FamilyId,
    generation: i64,
    new: &NewTokens,
    now: SystemTime,
) -> Result<(), StoreError> {
    execute!(
        change,
        "UPDATE oauth_grants SET last_used_at = ? WHERE grant_id = ?",
        seconds(now),
        grant
    );
    execute!(
        change,
        "UPDATE oauth_clients SET last_used_at = ?
         WHERE client_id = (SELECT client_id FROM oauth_grants WHERE grant_id = ?)",
        seconds(now),
        grant
    );
    execute!(
        change,
        "INSERT INTO oauth_refresh_tokens (token_hash, grant_id, family, generation, expires_at, issued_at)
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token_hash) DO NOTHING",
        new.refresh,
        grant,
        family,
        generation,
        seconds(new.refresh_expires_at),
        seconds(now)
    );
    execute!(
        change,
        "INSERT INTO oauth_access_tokens (token_hash, grant_id, family, expires_at) VALUES (?, ?, ?, ?)",
        new.access,
        grant,
        family,
        seconds(new.access_expires_at)
    );
    execute!(
        change,
        "DELETE FROM oauth_refresh_tokens WHERE grant_id = ? AND family = ? AND generation <= ?",
        grant,
        family,
        generation - REMEMBERED_GENERATIONS
    );
    execute!(
        change,
        "DELETE FROM oauth_access_tokens WHERE token_hash IN (
             SELECT token_hash FROM oauth_access_tokens WHERE grant_id = ?
             ORDER BY expires_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
        grant,
        MAX_ACCESS_TOKENS_PER_GRANT
    );
    Ok(())
}
