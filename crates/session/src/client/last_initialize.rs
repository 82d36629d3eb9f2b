//! The session of the grant's last `initialize`.
//!
//! If that has ended, its place is taken by an implicit session that is named after it: so a later
//! `initialize` has another one, and every registry finds the same.

use std::sync::Arc;

use tokio::time::Instant;

use super::{implicit, serve_error::ServeError};
use crate::{
    error_chain::error_chain,
    ports::{Caller, LastInitialize, RecordsError, SessionError, SessionKey, Snapshot},
    state::{ImplicitName, KnownInitialize, RegistryState, Session},
};

/// The session of the last `initialize`.
pub(super) enum Found {
    Session(Arc<Session>),
    /// It has ended, or there never was one.
    Ended {
        /// The implicit session in its place.
        key: SessionKey,
        /// The handshake; `None` if the grant has never initialized.
        snapshot: Option<Snapshot>,
    },
}

/// Finds the session, or the implicit one in its place. The records are read only if there is
/// neither.
///
/// # Errors
///
/// [`SessionError::Unavailable`] if the records cannot be read now.
pub(super) async fn find(state: &RegistryState, caller: &Caller) -> Result<Found, ServeError> {
    let known = state.initializes.of(&caller.grant);
    if let Some(session) = known.as_ref().and_then(|known| session_of(state, caller, known.key)) {
        return Ok(Found::Session(session));
    }
    let (key, snapshot) = match newest(state, caller, known).await? {
        Some(LastInitialize { key, snapshot }) => (Some(key), Some(snapshot)),
        None => (None, None),
    };
    Ok(match session_of(state, caller, key) {
        Some(session) => Found::Session(session),
        None => Found::Ended {
            key: implicit_key(caller, key),
            snapshot,
        },
    })
}

/// The session with this key, or the one in its place.
fn session_of(state: &RegistryState, caller: &Caller, key: Option<SessionKey>) -> Option<Arc<Session>> {
    let opened = key.and_then(|key| implicit::find(state, caller, &key));
    opened.or_else(|| implicit::find(state, caller, &implicit_key(caller, key)))
}

fn implicit_key(caller: &Caller, last: Option<SessionKey>) -> SessionKey {
    SessionKey::implicit(&caller.grant, ImplicitName::LastInitialize(last))
}

/// The last `initialize` of the grant: with records, as they have it.
async fn newest(
    state: &RegistryState,
    caller: &Caller,
    known: Option<KnownInitialize>,
) -> Result<Option<LastInitialize>, ServeError> {
    let Some(records) = &state.records else {
        return Ok(known.and_then(|known| {
            Some(LastInitialize {
                key: known.key?,
                snapshot: known.snapshot?,
            })
        }));
    };
    let grant = &caller.grant;
    let last = match records.last_initialize(grant).await {
        Ok(last) => last,
        Err(RecordsError::Damaged(error)) => {
            tracing::warn!(grant = %grant.0, error, "last initialize cannot be read");
            None
        }
        Err(error @ RecordsError::Unavailable(_)) => {
            tracing::warn!(grant = %grant.0, reason = error_chain(&error), "last initialize is not available now");
            return Err(SessionError::Unavailable.into());
        }
    };
    let loaded = KnownInitialize {
        key: last.as_ref().map(|last| last.key),
        snapshot: None,
    };
    state
        .initializes
        .refresh(grant, &caller.user, known.as_ref(), loaded, Instant::now());
    Ok(last)
}
