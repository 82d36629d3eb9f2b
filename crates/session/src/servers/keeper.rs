//! The keeper of a server: a task that watches the server and owns its end.
//!
//! There is one for each server. It stops the server once that has been replaced or detached, its
//! credential has expired, or its session has ended. Nothing else waits for the stop, so no client
//! pays for it. A server that dies by itself changes the session only if it is still the attached
//! one.
//!
//! A server that a rotation has replaced finishes what is in flight on it, for as long as its
//! credential is valid. It has a permit of its own meanwhile, and the next rotation waits for its
//! end, so a session has at most two servers. Any other server shares the permit of the session,
//! which is free only when nothing is left of them.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use super::start::StartedServer;
use crate::{
    ports::DetachReason,
    state::{AttachedServer, Expiry, RegistryState, RetiredServer, Session, SessionPermit},
    sync::{sleep_until, timeout_at},
};

/// A server that was attached, and the times since which calls have waited for it.
pub(crate) type Attached = (Arc<AttachedServer>, Vec<Instant>);

/// Attaches a server to its session, which has none or has `old`, and starts its keeper; `None` if
/// the session has ended or the place is taken. Then the keeper stops the server.
pub(crate) fn attach(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    started: StartedServer,
    old: Option<&Arc<AttachedServer>>,
) -> Option<Attached> {
    let StartedServer {
        number,
        server,
        permit,
        gone,
        _awaited,
    } = started;
    let expiry = server.expires_at().map(|wall| Expiry::new(wall, state.clock.now()));
    let attached = AttachedServer::new(number, server, expiry);
    let mut locked = session.lock();
    let waited = locked.lifecycle.attach(&attached, old);
    if waited.is_some() {
        if let Some(conversation) = &locked.conversation {
            conversation.attach(number);
        }
        if let Some(old) = old {
            locked.retired = Some(RetiredServer {
                server: Arc::clone(old),
                _permit: state.quota.force(&session.user),
            });
        }
        state.schedule(session, &locked.lifecycle, Instant::now());
    }
    drop(locked);
    let task = {
        let (state, session, attached) = (Arc::clone(state), Arc::clone(session), Arc::clone(&attached));
        let is_attached = waited.is_some();
        async move {
            let permit = if is_attached {
                watch(&state, &session, &attached, permit).await
            } else {
                Some(permit)
            };
            attached.server.stop().await;
            tracing::debug!(session = %session.tag, "backend stopped");
            release(&state, &session, &attached);
            drop(permit);
            drop(gone);
        }
    };
    state.tasks.spawn(task.instrument(session.span.clone()));
    Some((attached, waited?))
}

/// Watches a server until it has to be stopped, and returns its permit. One that was replaced gives
/// its share of the session's permit up.
async fn watch(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    attached: &Arc<AttachedServer>,
    permit: Arc<SessionPermit>,
) -> Option<Arc<SessionPermit>> {
    let expired = async {
        match attached.expiry {
            Some(expiry) => sleep_until(expiry.at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = session.ended.cancelled() => return Some(permit),
        () = attached.retired.cancelled() => {}
        () = attached.done.cancelled() => state.detach(session, attached, DetachReason::BackendDied),
        () = expired => state.detach(session, attached, DetachReason::Expired),
    }
    let drained = {
        let locked = session.lock();
        let conversation = locked.conversation.as_ref().filter(|_| locked.is_retired(attached));
        conversation.map(|conversation| conversation.drained(attached.number))
    };
    let Some(drained) = drained else {
        return Some(permit);
    };
    drop(permit);
    let grace = Instant::now() + state.config.rotate_grace;
    let deadline = attached.expiry.map_or(grace, |expiry| expiry.at);
    tokio::select! {
        biased;
        () = session.ended.cancelled() => {}
        () = attached.done.cancelled() => {}
        drained = timeout_at(deadline, drained) => if drained.is_err() {
            tracing::warn!(session = %session.tag, "requests aborted: their backend was replaced and its time is over");
        }
    }
    None
}

/// Ends the time of a server that was replaced, and lets the next rotation begin.
fn release(state: &RegistryState, session: &Session, attached: &Arc<AttachedServer>) {
    let mut locked = session.lock();
    if !locked.is_retired(attached) {
        return;
    }
    locked.retired = None;
    if attached.server.has_answered() {
        state.record_answer(session, &mut locked);
    }
    if std::mem::take(&mut locked.rotation_waits) && locked.lifecycle.server().is_some() {
        state.rotation_deadlines.set(session.key, Some(Instant::now()));
        state.rotate_now.notify_one();
    }
}
