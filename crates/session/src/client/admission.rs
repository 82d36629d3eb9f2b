//! Admission of a new session: a permit of the quota, freed by evicting a dormant session if need
//! be; and the limit of implicit sessions.

use std::time::Duration;

use http::Extensions;
use serde_json::json;
use tokio::time::Instant;

use super::serve_error::ServeError;
use crate::{
    ports::{AuthenticatedAt, Caller, EndReason, Event, QuotaScope, SessionError, UserId},
    state::{EndCondition, RegistryState, Session, SessionPermit},
};

/// Refuses a new session while no server of the user is started.
///
/// # Errors
///
/// [`SessionError::BackingOff`].
pub(super) fn check_backoff(state: &RegistryState, user: &UserId, now: Instant) -> Result<(), ServeError> {
    let Some(delay) = state.start_backoffs.remaining(user, now) else {
        return Ok(());
    };
    state.observer.on(Event::BackedOff);
    Err(SessionError::BackingOff(delay).into())
}

/// Acquires a permit for a session of `user`.
///
/// # Errors
///
/// [`ServeError::UserQuota`] and [`ServeError::TotalQuota`] if no session can be evicted.
pub(super) fn admit(state: &RegistryState, user: &UserId) -> Result<SessionPermit, ServeError> {
    let scope = loop {
        match state.quota.acquire(user) {
            Ok(permit) => return Ok(permit),
            Err(scope) if evict_dormant(state, scope, user) => {}
            Err(scope) => break scope,
        }
    };
    state.observer.on(Event::QuotaExceeded(scope));
    Err(match scope {
        QuotaScope::User => {
            tracing::info!(user = %user.0, "session refused: max_sessions_per_user is reached");
            user_quota(state, user)
        }
        QuotaScope::Total => {
            tracing::warn!("session refused: max_sessions is reached");
            ServeError::TotalQuota {
                retry_after: state.config.reap_interval,
            }
        }
    })
}

/// Makes room for an implicit session of the grant of `caller`, by ending those that have been idle
/// for longest. Those that are in use stay: the quota of the user bounds them.
pub(super) fn limit_implicit(state: &RegistryState, caller: &Caller) {
    let limit = state.config.max_implicit_sessions_per_grant;
    let mut held = state
        .table
        .select(|session| session.implicit && session.grant == caller.grant);
    held.retain(|session| !session.has_ended());
    // Cached: activity goes on meanwhile.
    held.sort_by_cached_key(|session| session.activity.last());
    let mut excess = (held.len() + 1).saturating_sub(limit);
    for session in held {
        let idle = EndCondition::IfIdleFor(Duration::ZERO);
        if excess > 0 && state.end(&session, EndReason::Evicted, idle) {
            excess -= 1;
        }
    }
}

/// Ends a new session if its grant has ended since the bearer of the request was checked. The
/// session is in the table by now, so that a later revocation finds it there.
///
/// # Errors
///
/// [`SessionError::SignInRequired`].
pub(super) fn check_revoked(
    state: &RegistryState,
    session: &Session,
    extensions: &Extensions,
) -> Result<(), ServeError> {
    let checked = extensions.get::<AuthenticatedAt>();
    if checked.is_some_and(|checked| state.revocations.revoked_since(*checked, &session.grant, &session.user)) {
        state.end(session, EndReason::Revoked, EndCondition::Always);
        return Err(SessionError::SignInRequired.into());
    }
    Ok(())
}

/// Ends the dormant session that has been idle for longest; false if there is none.
fn evict_dormant(state: &RegistryState, scope: QuotaScope, user: &UserId) -> bool {
    let sessions = state
        .table
        .select(|session| scope == QuotaScope::Total || session.user == *user);
    let dormant = sessions.into_iter().filter_map(|session| {
        let last_activity = {
            let lifecycle = &session.lock().lifecycle;
            (lifecycle.is_open() && lifecycle.server().is_none()).then(|| session.activity.last())?
        };
        Some((last_activity, session))
    });
    let mut dormant: Vec<_> = dormant.collect();
    dormant.sort_by_key(|(last_activity, _)| *last_activity);
    dormant
        .iter()
        .any(|(_, session)| state.end(session, EndReason::Evicted, EndCondition::IfDormant))
}

fn user_quota(state: &RegistryState, user: &UserId) -> ServeError {
    let (config, now) = (&state.config, Instant::now());
    let mut held = state.table.select(|session| session.user == *user);
    held.sort_by_key(|session| session.opened_at);
    let idle: Vec<_> = held.iter().map(|session| session.idle(&session.lock(), now)).collect();
    // The session that is idle for longest is reaped first. If all are in use, the wait is unknown.
    let longest = idle.iter().flatten().max();
    let retry_after = longest.map_or(config.reap_interval, |idle| config.idle_timeout.saturating_sub(*idle));
    let sessions = held.iter().zip(idle).map(|(session, idle)| {
        let age = now.saturating_duration_since(session.opened_at).as_secs();
        let mut summary = json!({ "tag": &*session.tag, "ageSeconds": age });
        // Absent while anything is in flight.
        if let Some(idle) = idle {
            summary["idleSeconds"] = idle.as_secs().into();
        }
        summary
    });
    ServeError::UserQuota {
        data: json!({ "limit": config.max_sessions_per_user, "sessions": sessions.collect::<Vec<_>>() }),
        retry_after,
    }
}
