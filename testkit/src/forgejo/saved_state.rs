//! The state by which another fake Forgejo, in another process, knows the tokens of this one.
//!
//! Tokens are signed and name a grant: the signing key, the application and the grants are enough.
//! Users are those that every fake has from its start. Codes and browser sessions are left out.

use serde::{Deserialize, Serialize};

use super::{FakeForgejo, Registered, instance::Grant, tokens::SigningKey};

/// The state of a fake Forgejo at one time. It holds its secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct SavedState {
    /// Seconds since the epoch.
    saved_at: i64,
    signing_key: String,
    client_id: String,
    client_secret: String,
    grants: Vec<Grant>,
}

impl FakeForgejo {
    pub fn save(&self) -> SavedState {
        let saved_at = self.shared.now();
        let instance = self.shared.instance();
        SavedState {
            saved_at,
            signing_key: instance.key.to_hex(),
            client_id: self.application.client_id.clone(),
            client_secret: self.application.client_secret.clone(),
            grants: instance.grants.values().cloned().collect(),
        }
    }

    /// Becomes the Forgejo of `saved` as it was so many seconds after the save: its clock is put
    /// back accordingly. Returns by how many seconds times of that past have to be moved to be of
    /// the present. Panics if the state is not one that was saved.
    pub fn restore(&mut self, saved: &SavedState, later: i64) -> i64 {
        self.set_clock_skew(0);
        let shift = self.shared.now() - saved.saved_at - later;
        self.set_clock_skew(-shift);
        let mut instance = self.shared.instance();
        instance.key = SigningKey::from_hex(&saved.signing_key).expect("a saved key is hex");
        for application in &mut instance.applications {
            if application.client_id == self.application.client_id {
                application.client_id.clone_from(&saved.client_id);
                application.secret.clone_from(&saved.client_secret);
            }
        }
        instance.restore_grants(&saved.grants);
        drop(instance);
        self.application = Registered {
            client_id: saved.client_id.clone(),
            client_secret: saved.client_secret.clone(),
        };
        shift
    }
}
