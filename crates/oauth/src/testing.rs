//! A scripted upstream, a clock that is set by hand, and an ear that remembers: for tests of whatever uses this crate.
//!
//! [`ScriptedUpstream`] keeps Forgejo's rule that matters most: a refresh token is good once, and a code exchange or
//! a renewal kills the user's earlier ones. It does not speak HTTP.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Semaphore, watch};
use url::Url;

use crate::{
    ids::{GrantId, UserId},
    pkce,
    ports::{BoxFuture, Clock, GrantEvents, GrantedScope, Upstream, UpstreamError, UpstreamTokens, UpstreamUser},
};

/// An upstream in memory.
#[derive(Debug)]
pub struct ScriptedUpstream {
    state: Mutex<State>,
    /// Where code exchanges wait.
    pub exchanges: Gate,
    /// Where renewals wait.
    pub renewals: Gate,
}

/// What the upstream is to say instead of a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The user is refused for good.
    Refused,
    /// The broker's configuration is not accepted.
    Misconfigured,
    /// No answer.
    Unavailable,
}

/// A place where calls can be kept waiting, and that counts them.
#[derive(Debug)]
pub struct Gate {
    arrivals: watch::Sender<u32>,
    permits: Semaphore,
}

/// A clock that goes when it is told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<SystemTime>);

/// Remembers what ended, and says what it was told to about sessions.
#[derive(Debug, Default)]
pub struct RecordedEvents {
    ended: Mutex<Vec<String>>,
    sessions: Mutex<HashMap<GrantId, usize>>,
}

#[derive(Debug)]
struct State {
    users: HashMap<UserId, UpstreamUser>,
    members: Vec<(String, String)>,
    codes: HashMap<String, (UserId, String, String)>,
    sign_ins: u32,
    /// By user: how many pairs there have been. The last one's refresh token is the one that is good.
    pairs: HashMap<UserId, u32>,
    trouble: Option<Trouble>,
    members_trouble: bool,
    granted_scope: GrantedScope,
    expires_in: Duration,
}

/// More permits than a test can use up.
const OPEN: usize = 1 << 20;

impl Default for ScriptedUpstream {
    fn default() -> Self {
        let state = State {
            users: HashMap::new(),
            members: Vec::new(),
            codes: HashMap::new(),
            sign_ins: 0,
            pairs: HashMap::new(),
            trouble: None,
            members_trouble: false,
            granted_scope: GrantedScope::AsAsked,
            expires_in: Duration::from_secs(3600),
        };
        Self {
            state: Mutex::new(state),
            exchanges: Gate::default(),
            renewals: Gate::default(),
        }
    }
}

impl ScriptedUpstream {
    /// Adds a user who may sign in.
    pub fn add_user(&self, id: UserId, login: &str) {
        self.state().users.insert(
            id,
            UpstreamUser {
                id,
                login: login.to_owned(),
                active: true,
            },
        );
    }

    /// Locks a user out.
    pub fn deactivate(&self, id: UserId) {
        if let Some(user) = self.state().users.get_mut(&id) {
            user.active = false;
        }
    }

    /// Makes a user a member of an organisation.
    pub fn add_member(&self, organization: &str, login: &str) {
        self.state().members.push((organization.to_owned(), login.to_owned()));
    }

    /// Signs a user in at the address to which the broker has sent the browser. Returns the code.
    ///
    /// # Panics
    ///
    /// If the address lacks what it needs.
    pub fn sign_in(&self, id: UserId, authorize_url: &str) -> String {
        let url = Url::parse(authorize_url).expect("the authorize URL is a URL");
        let parameter = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found
                .unwrap_or_else(|| panic!("the authorize URL has no {name}"))
                .1
                .into_owned()
        };
        let mut state = self.state();
        state.sign_ins += 1;
        let code = format!("code-{}-{id}", state.sign_ins);
        state.codes.insert(
            code.clone(),
            (id, parameter("code_challenge"), parameter("redirect_uri")),
        );
        code
    }

    /// What exchanges and renewals are to say from now on; `None` for good answers.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble;
    }

    /// Whether questions about memberships are to go unanswered from now on.
    pub fn set_members_trouble(&self, trouble: bool) {
        self.state().members_trouble = trouble;
    }

    /// What tokens are to allow from now on.
    pub fn set_granted_scope(&self, scope: GrantedScope) {
        self.state().granted_scope = scope;
    }

    /// How long access tokens are good from now on.
    pub fn set_expires_in(&self, expires_in: Duration) {
        self.state().expires_in = expires_in;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            arrivals: watch::Sender::new(0),
            permits: Semaphore::new(OPEN),
        }
    }
}

impl Gate {
    /// Keeps waiting what comes from now on, until [`Gate::release`].
    pub fn hold(&self) {
        self.permits.forget_permits(OPEN);
    }

    /// Lets go on what waits.
    pub fn release(&self) {
        self.permits.add_permits(OPEN);
    }

    /// How many have come so far.
    pub fn arrivals(&self) -> u32 {
        *self.arrivals.borrow()
    }

    /// Waits until this many have come.
    ///
    /// # Panics
    ///
    /// Never: the sender lives as long as the gate.
    pub async fn arrival(&self, number: u32) {
        let mut arrivals = self.arrivals.subscribe();
        let reached = arrivals.wait_for(|count| *count >= number).await;
        reached.expect("the sender lives as long as the gate");
    }

    /// Comes, and waits if it has to.
    ///
    /// # Errors
    ///
    /// Never: the gate is not closed while someone is at it.
    pub async fn pass(&self) -> Result<(), UpstreamError> {
        self.arrivals.send_modify(|count| *count += 1);
        let permit = self.permits.acquire().await;
        permit
            .map(drop)
            .map_err(|error| UpstreamError::Unavailable(Box::new(error)))
    }
}

impl State {
    /// Makes the next pair of a user. Access tokens read `access-USER-NUMBER`.
    fn next_pair(&mut self, user: UserId) -> UpstreamTokens {
        let number = self.pairs.entry(user).or_default();
        *number += 1;
        UpstreamTokens {
            access_token: format!("access-{user}-{number}").into(),
            refresh_token: format!("refresh-{user}-{number}").into(),
            expires_in: self.expires_in,
        }
    }

    fn check(&self) -> Result<(), UpstreamError> {
        match self.trouble {
            None => Ok(()),
            Some(Trouble::Refused) => Err(UpstreamError::Refused("as scripted".to_owned())),
            Some(Trouble::Misconfigured) => Err(UpstreamError::Misconfigured("as scripted".to_owned())),
            Some(Trouble::Unavailable) => Err(UpstreamError::Unavailable("as scripted".into())),
        }
    }
}

impl Upstream for ScriptedUpstream {
    fn name(&self) -> &str {
        "forgejo.example"
    }

    fn permissions(&self) -> Vec<String> {
        vec!["read your account and profile".to_owned()]
    }

    fn sees_organizations(&self) -> bool {
        true
    }

    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url {
        let mut url = Url::parse("https://forgejo.example/login/oauth/authorize").expect("it is a URL");
        url.query_pairs_mut()
            .append_pair("state", state)
            .append_pair("code_challenge", challenge)
            .append_pair("redirect_uri", redirect_uri);
        url
    }

    fn exchange<'a>(
        &'a self,
        code: &'a SecretString,
        verifier: &'a SecretString,
        redirect_uri: &'a str,
    ) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            self.exchanges.pass().await?;
            let mut state = self.state();
            state.check()?;
            match state.codes.remove(code.expose_secret()) {
                Some((user, challenge, redirect))
                    if pkce::verifies(verifier.expose_secret(), &challenge) && redirect == redirect_uri =>
                {
                    Ok(state.next_pair(user))
                }
                _ => Err(UpstreamError::Refused("client is not authorized".to_owned())),
            }
        })
    }

    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            self.renewals.pass().await?;
            let mut state = self.state();
            state.check()?;
            let user = state
                .pairs
                .iter()
                .find(|(user, number)| refresh_token.expose_secret() == format!("refresh-{user}-{number}"))
                .map(|(user, _)| *user)
                .ok_or_else(|| UpstreamError::Refused("token was already used".to_owned()))?;
            Ok(state.next_pair(user))
        })
    }

    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>> {
        Box::pin(async move {
            let state = self.state();
            let id = access_token
                .expose_secret()
                .split('-')
                .nth(1)
                .and_then(|id| id.parse().ok().map(UserId));
            id.and_then(|id| state.users.get(&id))
                .cloned()
                .ok_or_else(|| UpstreamError::Refused("401: no such token".to_owned()))
        })
    }

    fn granted_scope<'a>(
        &'a self,
        _access_token: &'a SecretString,
    ) -> BoxFuture<'a, Result<GrantedScope, UpstreamError>> {
        Box::pin(async move { Ok(self.state().granted_scope.clone()) })
    }

    fn settings_url(&self) -> Url {
        Url::parse("https://forgejo.example/user/settings/applications").expect("it is a URL")
    }

    fn is_member<'a>(
        &'a self,
        _access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>> {
        Box::pin(async move {
            let state = self.state();
            if state.members_trouble {
                return Err(UpstreamError::Unavailable("as scripted".into()));
            }
            Ok(state
                .members
                .iter()
                .any(|(org, member)| org == organization && member == login))
        })
    }
}

impl ManualClock {
    /// A clock that shows a time.
    pub fn at(now: SystemTime) -> Arc<Self> {
        Arc::new(Self(Mutex::new(now)))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordedEvents {
    /// Takes what has ended since the last call: `grant NAME` and `user ID`, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says from now on that this many sessions live on a grant.
    pub fn set_sessions(&self, grant: &GrantId, count: usize) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(grant.clone(), count);
    }

    fn push(&self, event: String) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(event);
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
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(grant).copied().unwrap_or_default()
    }
}
