//! The conversation of a session: made with the session, and again from its record when a request
//! comes after a restart or after it was put down.

use std::sync::{Arc, Weak};

use crate::{
    error_chain::error_chain,
    ports::{
        BoxError, Conversation, ConversationInfo, DetachReason, EndReason, RecordsError, ServerNumber, SessionControl,
        SessionError, SessionHandle, Snapshot,
    },
    servers::wake,
    state::{EndCondition, Phase, RegistryState, Session},
};

/// The registry as a conversation sees it.
#[derive(Debug)]
struct Control {
    state: Weak<RegistryState>,
    session: Weak<Session>,
}

/// Makes the conversation of a session. The caller gives it to the session.
pub(crate) fn make(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    snapshot: Option<Snapshot>,
) -> Result<Arc<dyn Conversation>, BoxError> {
    let info = ConversationInfo {
        tag: Arc::clone(&session.tag),
        grant: session.grant.clone(),
        user: session.user.clone(),
        implicit: session.implicit,
    };
    let control = Control {
        state: Arc::downgrade(state),
        session: Arc::downgrade(session),
    };
    state
        .host
        .conversation(info, SessionHandle::new(Arc::new(control)), snapshot)
}

/// The conversation of an open session. One request at a time makes it from the record; a client
/// that goes away leaves that to the next one.
///
/// # Errors
///
/// [`SessionError::Ended`], also if there is no record or it cannot be used, and
/// [`SessionError::Unavailable`] if the record cannot be read now.
pub(crate) async fn of(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
) -> Result<Arc<dyn Conversation>, SessionError> {
    if let Some(conversation) = present(session)? {
        return Ok(conversation);
    }
    let loading = Arc::clone(session.lock().loading.get_or_insert_default());
    let _loading = loading.lock().await;
    if let Some(conversation) = present(session)? {
        return Ok(conversation);
    }
    let made = match snapshot(state, session).await? {
        Some(snapshot) => make(state, session, Some(snapshot)),
        None => Err("there is no snapshot of it".into()),
    };
    let conversation = match made {
        Ok(conversation) => conversation,
        Err(error) => {
            tracing::warn!(session = %session.tag, error, "session cannot be revived");
            state.end(session, EndReason::Unrevivable, EndCondition::Always);
            return Err(SessionError::Ended);
        }
    };
    let revision = conversation.revision();
    let mut locked = session.lock();
    if let Phase::Ended(_) = locked.lifecycle.phase() {
        return Err(SessionError::Ended);
    }
    if let Some(written) = &mut locked.written {
        written.revision = Some(revision);
    }
    locked.conversation = Some(Arc::clone(&conversation));
    locked.loading = None;
    Ok(conversation)
}

fn present(session: &Session) -> Result<Option<Arc<dyn Conversation>>, SessionError> {
    let locked = session.lock();
    if let Phase::Ended(_) = locked.lifecycle.phase() {
        return Err(SessionError::Ended);
    }
    Ok(locked.conversation.clone())
}

/// The snapshot in the record of a session.
async fn snapshot(state: &RegistryState, session: &Session) -> Result<Option<Snapshot>, SessionError> {
    let Some(records) = &state.records else {
        return Ok(None);
    };
    match records.snapshot(session.key).await {
        Ok(snapshot) => Ok(snapshot),
        Err(RecordsError::Damaged(error)) => {
            tracing::warn!(session = %session.tag, error, "session record cannot be read");
            Ok(None)
        }
        Err(error @ RecordsError::Unavailable(_)) => {
            tracing::warn!(session = %session.tag, reason = error_chain(&error), "session record is not available now");
            Err(SessionError::Unavailable)
        }
    }
}

impl SessionControl for Control {
    fn want(&self, after: ServerNumber) {
        let (Some(state), Some(session)) = (self.state.upgrade(), self.session.upgrade()) else {
            return;
        };
        if let Some(current) = session.server() {
            if current.number > after {
                return;
            }
            state.detach(&session, &current, DetachReason::BackendDied);
        }
        wake::want(&state, &session);
    }

    fn changed(&self) {
        if let (Some(state), Some(session)) = (self.state.upgrade(), self.session.upgrade()) {
            state.changes.mark_changed(&session);
        }
    }

    fn touch(&self) {
        if let (Some(state), Some(session)) = (self.state.upgrade(), self.session.upgrade()) {
            state.touch(&session);
        }
    }
}
