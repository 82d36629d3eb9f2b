//! A receiver of grant events that records the calls and answers how many sessions a grant has.

use std::{collections::HashMap, sync::Mutex};

use oauth::{
    ids::{GrantId, UserId},
    ports::GrantEvents,
};

#[derive(Debug, Default)]
pub(crate) struct RecordedEvents {
    ended: Mutex<Vec<String>>,
    sessions: Mutex<HashMap<GrantId, usize>>,
}

impl RecordedEvents {
    /// Takes the revocations since the last call, in order: `grant ID` and `user ID`.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.ended.lock().unwrap())
    }

    pub(crate) fn set_sessions(&self, grant: &GrantId, count: usize) {
        self.sessions.lock().unwrap().insert(grant.clone(), count);
    }

    fn push(&self, event: String) {
        self.ended.lock().unwrap().push(event);
    }
}

impl GrantEvents for RecordedEvents {
    fn grant_ended(&self, grant: &GrantId) {
        self.push(format!("grant {grant}"));
    }

    fn user_ended(&self, user: UserId) {
        self.push(format!("user {user}"));
    }

    fn sessions(&self, grant: &GrantId) -> usize {
        self.sessions.lock().unwrap().get(grant).copied().unwrap_or_default()
    }
}
