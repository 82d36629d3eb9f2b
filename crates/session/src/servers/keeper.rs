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
//! which is free only when nothing is left of them. When a credential expires, replaced or not, the
//! calls in flight on its server have [`SETTLE_TIME`], for which nothing waits: most have presented
//! the credential already.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::Instrument;

use super::start::StartedServer;
use crate::{
    ports::DetachReason,
    state::{AttachedServer, Expiry, RegistryState, RetiredServer, Session, Share},
    sync::{sleep_until, timeout, timeout_at},
};

/// The time that calls in flight have to finish when the credential of their server expires.
const SETTLE_TIME: Duration = Duration::from_secs(5);

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
        mut share,
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
            locked.retired = Some(Box::new(RetiredServer {
                server: Arc::clone(old),
                _permit: state.quota.force(&session.user),
            }));
        }
        state.schedule(session, &locked.lifecycle, Instant::now());
    }
    drop(locked);
    let task = {
        let (state, session, attached) = (Arc::clone(state), Arc::clone(session), Arc::clone(&attached));
        let is_attached = waited.is_some();
        async move {
            let retired = if is_attached {
                watch(&state, &session, &attached, &mut share).await
            } else {
                None
            };
            attached.server.stop().await;
            tracing::debug!(session = %session.tag, "backend stopped");
            drop(retired.or_else(|| release(&state, &session, &attached)));
            drop(share);
        }
    };
    state.tasks.spawn(task.instrument(session.span.clone()));
    Some((attached, waited?))
}

/// Watches a server until it has to be stopped. One that was replaced gives the session's permit
/// up, and may come back with the one of its own.
async fn watch(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    attached: &Arc<AttachedServer>,
    share: &mut Share,
) -> Option<Box<RetiredServer>> {
    let mut retired = None;
    let expires = async {
        match attached.expiry {
            Some(expiry) => sleep_until(expiry.at).await,
            None => std::future::pending().await,
        }
    };
    let expired = tokio::select! {
        biased;
        () = session.ended.cancelled() => return None,
        () = attached.retired.cancelled() => false,
        () = attached.done.cancelled() => {
            state.detach(session, attached, DetachReason::BackendDied);
            return None;
        }
        () = expires => {
            state.detach(session, attached, DetachReason::Expired);
            true
        }
    };
    let (replaced, drained) = {
        let locked = session.lock();
        let replaced = locked.is_retired(attached);
        let conversation = locked.conversation.as_ref().filter(|_| replaced || expired);
        (
            replaced,
            conversation.map(|conversation| conversation.drained(attached.number)),
        )
    };
    let mut drained = drained?;
    let drained = async {
        if replaced {
            share.permit = None;
            let grace = Instant::now() + state.config.rotate_grace;
            let deadline = attached.expiry.map_or(grace, |expiry| expiry.at);
            let in_time = timeout_at(deadline, &mut drained).await.is_ok();
            if in_time || attached.expiry.is_none() {
                return in_time;
            }
            retired = release(state, session, attached);
        }
        let settle = SETTLE_TIME.min(state.config.rotate_grace);
        timeout(settle, drained).await.is_ok()
    };
    tokio::select! {
        biased;
        () = session.ended.cancelled() => {}
        () = attached.done.cancelled() => {}
        in_time = drained => if !in_time {
            tracing::warn!(session = %session.tag, "requests aborted: the time of their backend is over");
        }
    }
    retired
}

/// Ends the time of a server that was replaced, and lets the next rotation begin. The permit is
/// free when the server has stopped.
fn release(state: &RegistryState, session: &Session, attached: &Arc<AttachedServer>) -> Option<Box<RetiredServer>> {
    let mut locked = session.lock();
    if !locked.is_retired(attached) {
        return None;
    }
    let retired = locked.retired.take();
    if attached.server.has_answered() {
        state.record_answer(session, &mut locked);
    }
    if mem::take(&mut locked.rotation_waits) && locked.lifecycle.server().is_some() {
        state.rotation_deadlines.set(session.key, Some(Instant::now()));
        state.rotate_now.notify_one();
    }
    retired
}
