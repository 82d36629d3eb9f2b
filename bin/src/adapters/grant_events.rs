//! `oauth`'s grant events by `session`'s registry.

use std::sync::{Arc, OnceLock};

use oauth::{
    ids::{GrantId, UserId},
    ports::GrantEvents,
};
use session::Registry;

use super::authority::{grant_id, user_id};

/// Ends the sessions of a grant when the grant ends, and rotates those of a user who signs in
/// again.
///
/// The authorization server is built before the registry, whose callers come from it: the registry
/// is set later.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionEvents {
    /// Set once, before serving.
    registry: Arc<OnceLock<Arc<Registry>>>,
}

impl SessionEvents {
    /// Sets the registry. Only the first call counts.
    pub(crate) fn set_registry(&self, registry: Arc<Registry>) {
        if self.registry.set(registry).is_err() {
            tracing::debug!("the registry is set already");
        }
    }
}

impl GrantEvents for SessionEvents {
    fn grant_ended(&self, grant: &GrantId) {
        if let Some(registry) = self.registry.get() {
            // The call ends the sessions; the future would only wait for their children.
            drop(registry.end_grant(&grant_id(grant)));
        }
    }

    fn user_ended(&self, user: UserId) {
        if let Some(registry) = self.registry.get() {
            drop(registry.end_user(&user_id(user)));
        }
    }

    fn user_signed_in(&self, user: UserId) {
        if let Some(registry) = self.registry.get() {
            registry.rotate_user(&user_id(user));
        }
    }

    fn sessions(&self, grant: &GrantId) -> usize {
        self.registry
            .get()
            .map_or(0, |registry| registry.sessions_of_grant(&grant_id(grant)))
    }
}
