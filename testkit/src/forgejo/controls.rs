//! What a test does to the fake Forgejo while it runs: people, revocation, switches, faults, counters.

use std::time::Duration;

use tokio::time::timeout;

use super::{Counters, FakeForgejo, Fault, Registered, Times, state::State};

/// How long counters may take to be as wanted.
const PATIENCE: Duration = Duration::from_secs(60);

impl FakeForgejo {
    /// Adds a user who signs in with this password, and gives the user's id.
    pub fn add_user(&self, login: &str, password: &str) -> i64 {
        self.change(|state| state.add_user(login, login, password))
    }

    /// Makes a user a member of an organisation, which exists from then on.
    ///
    /// # Panics
    ///
    /// When there is no such user; so do all operations here that name one.
    pub fn add_org_member(&self, organisation: &str, login: &str) {
        let user = self.user_id(login);
        self.change(|state| {
            state
                .organisations
                .entry(organisation.to_owned())
                .or_default()
                .insert(user)
        });
    }

    /// Gives a user a repository more.
    pub fn add_repository(&self, login: &str, name: &str) {
        let owner = self.user_id(login);
        self.change(|state| state.repositories.push((owner, name.to_owned())));
    }

    /// Registers an application. A public one (not confidential) needs PKCE and no secret.
    pub fn register_application(&self, name: &str, redirect_uris: &[&str], confidential: bool) -> Registered {
        let uris: Vec<String> = redirect_uris.iter().map(ToString::to_string).collect();
        let application = self.change(|state| state.add_application(name, &uris, confidential));
        Registered {
            client_id: application.client_id,
            client_secret: application.secret,
        }
    }

    /// Replaces the redirect URIs of the default application, for a broker whose port is known only later.
    pub fn set_redirect_uris(&self, redirect_uris: &[&str]) {
        let uris: Vec<String> = redirect_uris.iter().map(ToString::to_string).collect();
        self.change(|state| {
            for application in &mut state.applications {
                if application.client_id == self.application.client_id {
                    application.redirect_uris.clone_from(&uris);
                }
            }
        });
    }

    /// Makes an access token for a user as if the default application had been granted `scope`, without a browser. A
    /// grant that is there already keeps its scope.
    pub fn access_token(&self, login: &str, scope: &str) -> String {
        let user = self.user_id(login);
        let now = self.shared.now();
        self.change(|state| {
            let application = state
                .application(&self.application.client_id)
                .map_or(0, |application| application.id);
            let grant = state.grant_of(user, application).map(|grant| grant.id);
            let grant = grant.unwrap_or_else(|| state.add_grant(user, application, scope, ""));
            state.access_token(grant, now)
        })
    }

    /// The user revokes every application: access tokens and refresh tokens are dead at once. Gives the number of grants
    /// that ended.
    pub fn revoke(&self, login: &str) -> usize {
        let user = self.user_id(login);
        self.change(|state| state.revoke(user))
    }

    /// An administrator prohibits a user from signing in; the API answers 403 from then on.
    pub fn disable(&self, login: &str) {
        self.set_prohibited(login, true);
    }

    /// Takes [`disable`](Self::disable) back.
    pub fn enable(&self, login: &str) {
        self.set_prohibited(login, false);
    }

    /// Lifetimes of the tokens made from now on, in whole seconds.
    pub fn set_lifetimes(&self, access: Duration, refresh: Duration) {
        self.change(|state| {
            state.settings.access_lifetime = access;
            state.settings.refresh_lifetime = refresh;
        });
    }

    /// What `expires_in` says from now on, in whole seconds; how long access tokens live stays as it is. So a client renews as
    /// often as a test likes, and one that is late for want of a processor still holds a token that is good.
    pub fn set_told_lifetime(&self, told: Duration) {
        self.change(|state| state.settings.told_lifetime = Some(told));
    }

    /// Whether refresh tokens are single-use (`INVALIDATE_REFRESH_TOKENS`), as they are by default.
    pub fn set_invalidate_refresh_tokens(&self, on: bool) {
        self.change(|state| state.settings.invalidate_refresh_tokens = on);
    }

    /// Puts this server's clock ahead by so many seconds, or back if negative.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.change(|state| state.settings.clock_skew = seconds);
    }

    /// Time between the checks and the effect of a request to the token endpoint. Two refreshes that fall into one window
    /// both pass the checks, and the second one fails with `cannot increase the grant counter`.
    pub fn set_token_window(&self, window: Duration) {
        self.change(|state| state.settings.token_window = window);
    }

    /// Turns a fault on for the paths that start with `prefix`.
    pub fn inject(&self, prefix: &str, fault: Fault, times: Times) {
        self.change(|state| state.faults.inject(prefix, fault, times));
    }

    /// Turns all faults off.
    pub fn clear_faults(&self) {
        self.change(|state| state.faults.clear());
    }

    /// What was asked so far.
    pub fn counters(&self) -> Counters {
        self.shared.state().counters.clone()
    }

    /// Waits until the counters are as wanted, and gives them.
    ///
    /// Cancel safe.
    ///
    /// # Panics
    ///
    /// If they are not within a minute: the test fails, in the place of hanging for ever.
    pub async fn wait_for(&self, wanted: impl Fn(&Counters) -> bool) -> Counters {
        let counted = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                // Listening before looking: what happens in between is not missed.
                changed.as_mut().enable();
                let counters = self.counters();
                if wanted(&counters) {
                    return counters;
                }
                changed.await;
            }
        };
        match timeout(PATIENCE, counted).await {
            Ok(counters) => counters,
            Err(_) => panic!("the counters are not as wanted: {:?}", self.counters()),
        }
    }

    fn set_prohibited(&self, login: &str, prohibited: bool) {
        let id = self.user_id(login);
        self.change(|state| {
            for user in state.users.iter_mut().filter(|user| user.id == id) {
                user.prohibited = prohibited;
            }
        });
    }

    fn user_id(&self, login: &str) -> i64 {
        let id = self.shared.state().user_named(login).map(|user| user.id);
        id.unwrap_or_else(|| panic!("the fake Forgejo has no user {login}"))
    }

    fn change<R>(&self, operation: impl FnOnce(&mut State) -> R) -> R {
        operation(&mut self.shared.state())
    }
}
