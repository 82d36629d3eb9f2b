//! The handles by which a test changes the fake Forgejo while it runs, and the counters that it
//! reads.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use super::{FakeForgejo, Fault, Registered, Times};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests by path, those that met a fault included.
    pub requests: BTreeMap<String, u64>,
    pub exchanges: u64,
    /// Refresh tokens exchanged for new ones, those whose response was lost included.
    pub refreshes: u64,
    pub refresh_refusals: u64,
    /// The login of each `GET /api/v1/user` that returned a user, in order.
    pub user_lookups: Vec<String>,
}

impl Counters {
    pub fn requests_to(&self, path: &str) -> u64 {
        self.requests.get(path).copied().unwrap_or(0)
    }
}

/// Operations on a login panic if there is no such user.
impl FakeForgejo {
    pub fn add_user(&self, login: &str, password: &str) -> i64 {
        self.shared.instance().add_user(login, login, password)
    }

    /// Registers an application. A public one (not confidential) needs PKCE and no secret.
    pub fn register_application(&self, name: &str, redirect_uris: &[&str], confidential: bool) -> Registered {
        let uris: Vec<String> = redirect_uris.iter().map(ToString::to_string).collect();
        self.shared.instance().add_application(name, &uris, confidential).into()
    }

    /// Makes an access token for a user as if the default application had been granted `scope`,
    /// without a browser. An existing grant keeps its scope.
    pub fn access_token(&self, login: &str, scope: &str) -> String {
        let (user, now) = (self.user_id(login), self.shared.now());
        let mut instance = self.shared.instance();
        let application = instance.application(&self.application.client_id);
        let application = application.expect("the default application is never removed").id;
        let grant = instance.grant_of(user, application).map(|grant| grant.id);
        let grant = grant.unwrap_or_else(|| instance.add_grant(user, application, scope));
        instance.access_token(grant, now)
    }

    /// The user revokes every application: access and refresh tokens are invalid at once. Returns
    /// the number of grants that ended.
    pub fn revoke(&self, login: &str) -> usize {
        let user = self.user_id(login);
        self.shared.instance().revoke(user)
    }

    /// An administrator prohibits a user from signing in; the API answers the user's tokens with
    /// 403.
    pub fn disable(&self, login: &str) {
        self.set_prohibited(login, true);
    }

    /// Reverts [`disable`](Self::disable).
    pub fn enable(&self, login: &str) {
        self.set_prohibited(login, false);
    }

    /// Sets the lifetimes of new tokens, in whole seconds.
    pub fn set_lifetimes(&self, access: Duration, refresh: Duration) {
        let lifetimes = &mut self.shared.instance().lifetimes;
        (lifetimes.access, lifetimes.refresh) = (access, refresh);
    }

    /// Sets the value of `expires_in`, in whole seconds, and leaves the lifetime of access tokens
    /// as it is. Clients then renew as often as a test likes, and one that is late on a busy
    /// machine still holds a valid token.
    pub fn set_advertised_lifetime(&self, lifetime: Duration) {
        self.shared.instance().advertised_lifetime = Some(lifetime);
    }

    /// Puts this server's clock ahead by so many seconds, or back if negative.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.instance().clock_skew = seconds;
    }

    pub fn inject(&self, prefix: &str, fault: Fault, times: Times) {
        self.shared.instance().faults.inject(prefix, fault, times);
    }

    pub fn clear_faults(&self) {
        self.shared.instance().faults.clear();
    }

    pub fn counters(&self) -> Counters {
        self.shared.instance().counters.clone()
    }

    /// Waits until the counters fulfil a condition, and returns them; panics after a minute. Cancel
    /// safe.
    pub async fn wait_for(&self, condition: impl Fn(&Counters) -> bool) -> Counters {
        let fulfilled = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                // Listening starts before the check, so that no change between them is missed.
                changed.as_mut().enable();
                let counters = self.counters();
                if condition(&counters) {
                    return counters;
                }
                changed.await;
            }
        };
        match timeout(WAIT_TIMEOUT, fulfilled).await {
            Ok(counters) => counters,
            Err(_) => panic!("the counters do not fulfil the condition: {:?}", self.counters()),
        }
    }

    fn set_prohibited(&self, login: &str, prohibited: bool) {
        let id = self.user_id(login);
        let users = &mut self.shared.instance().users;
        let user = users.iter_mut().find(|user| user.id == id);
        user.expect("users are never removed").prohibited = prohibited;
    }

    fn user_id(&self, login: &str) -> i64 {
        let id = self.shared.instance().user_named(login).map(|user| user.id);
        id.unwrap_or_else(|| panic!("the fake Forgejo has no user {login}"))
    }
}
