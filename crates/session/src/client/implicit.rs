//! Implicit sessions: made by the first request that belongs to them.
//!
//! One is made at a time, so that of several first requests one makes the session and the others
//! find it. It is made dormant: the first call that wants a server wakes it.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use super::{admission, serve_error::ServeError};
use crate::{
    ports::{Caller, Event, SessionError, SessionKey, Snapshot},
    servers::conversation,
    state::{Identity, Lifecycle, RegistryState, Session},
    sync::lock,
};

/// A session of the caller's grant that has not ended.
pub(super) fn find(state: &RegistryState, caller: &Caller, key: &SessionKey) -> Option<Arc<Session>> {
    let session = state.table.get(key)?;
    (session.grant == caller.grant && !session.has_ended()).then_some(session)
}

/// The implicit session with this key. If there is none, it is made for the request, from the
/// handshake of the grant if that has one.
///
/// # Errors
///
/// As for the opening of a session.
pub(super) fn find_or_make(
    state: &Arc<RegistryState>,
    caller: &Arc<Caller>,
    key: SessionKey,
    handshake: Option<Snapshot>,
    request: &Request<Bytes>,
) -> Result<Arc<Session>, ServeError> {
    if let Some(session) = find(state, caller, &key) {
        return Ok(session);
    }
    let _making = lock(&state.making);
    if let Some(session) = find(state, caller, &key) {
        return Ok(session);
    }
    let Some(snapshot) = handshake.or_else(|| state.host.initial_snapshot(request)) else {
        tracing::error!("implicit session not made: the host has no snapshot for it");
        return Err(ServeError::Internal);
    };
    let now = Instant::now();
    // Before a session is ended for one that cannot start.
    admission::check_backoff(state, &caller.user, now)?;
    admission::limit_implicit(state, caller);
    let permit = admission::admit(state, &caller.user)?;
    let identity = Identity {
        key,
        grant: caller.grant.clone(),
        user: caller.user.clone(),
        implicit: true,
    };
    let session = Arc::new(Session::new(identity, permit, Lifecycle::dormant(), now, now));
    session.bind_caller(caller);
    let conversation = conversation::make(state, &session, Some(snapshot)).map_err(|error| {
        tracing::error!(session = %session.tag, error, "implicit session not made: its snapshot cannot be used");
        ServeError::Internal
    })?;
    session.lock().conversation = Some(conversation);
    if !state.table.insert(&session) {
        return Err(SessionError::ShuttingDown.into());
    }
    admission::check_revoked(state, &session, request.extensions())?;
    state.schedule(&session, &session.lock().lifecycle, now);
    state.observer.on(Event::Opened);
    tracing::info!(session = %session.tag, "implicit session made");
    Ok(session)
}
