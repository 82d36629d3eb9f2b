//! An upstream in memory that a test scripts.
//!
//! It keeps Forgejo's rule that matters most: a refresh token works once, and a code exchange or a
//! renewal invalidates the user's earlier ones. It does not speak HTTP.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oauth::{
    ids::UserId,
    ports::{BoxFuture, GrantedScope, Upstream, UpstreamError, UpstreamTokens, UpstreamUser},
};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};
use url::Url;

/// The upstream.
#[derive(Debug)]
pub(crate) struct ScriptedUpstream {
    state: Mutex<State>,
    /// Code exchanges pass this gate.
    pub(crate) exchanges: Gate,
    /// Renewals pass this gate.
    pub(crate) renewals: Gate,
}

/// A scripted failure of exchanges and renewals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScriptedFailure {
    /// The user is refused for good.
    Refused,
    /// The user is refused for an unknown reason.
    Unconfirmed,
    /// The broker's configuration is not accepted.
    Misconfigured,
    /// No answer.
    Unavailable,
}

/// A gate that counts the calls that arrive and can hold them.
#[derive(Debug)]
pub(crate) struct Gate {
    arrivals: watch::Sender<u32>,
    permits: Semaphore,
}

#[derive(Debug)]
struct State {
    users: HashMap<UserId, UpstreamUser>,
    members: Vec<(String, String)>,
    codes: HashMap<String, (UserId, String, String)>,
    sign_ins: u32,
    /// The number of token pairs that each user has had. The last one's refresh token is the valid
    /// one.
    pairs: HashMap<UserId, u32>,
    failure: Option<ScriptedFailure>,
    members_unavailable: bool,
    user_unavailable: bool,
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
            failure: None,
            members_unavailable: false,
            user_unavailable: false,
            granted_scope: GrantedScope::AsRequested,
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
    pub(crate) fn add_user(&self, id: UserId, login: &str) {
        let user = UpstreamUser {
            id,
            login: login.to_owned(),
            active: true,
        };
        self.state().users.insert(id, user);
    }

    /// Locks a user out.
    pub(crate) fn deactivate(&self, id: UserId) {
        self.state().users.get_mut(&id).unwrap().active = false;
    }

    /// Gives a user another login.
    pub(crate) fn rename(&self, id: UserId, login: &str) {
        self.state().users.get_mut(&id).unwrap().login = login.to_owned();
    }

    /// Makes a member of an organization leave it.
    pub(crate) fn remove_member(&self, organization: &str, login: &str) {
        let is_member = |(org, member): &(String, String)| org == organization && member == login;
        self.state().members.retain(|entry| !is_member(entry));
    }

    /// Makes a user a member of an organization.
    pub(crate) fn add_member(&self, organization: &str, login: &str) {
        self.state().members.push((organization.to_owned(), login.to_owned()));
    }

    /// Signs a user in at the URL to which the broker has sent the browser. Returns the code.
    pub(crate) fn sign_in(&self, id: UserId, authorize_url: &str) -> String {
        let url = Url::parse(authorize_url).unwrap();
        let parameter = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            let (_, value) = found.unwrap_or_else(|| panic!("the authorize URL has no {name}"));
            value.into_owned()
        };
        let mut state = self.state();
        state.sign_ins += 1;
        let code = format!("code-{}-{id}", state.sign_ins);
        let bound = (id, parameter("code_challenge"), parameter("redirect_uri"));
        state.codes.insert(code.clone(), bound);
        code
    }

    /// Exchanges and renewals fail from now on, or succeed again.
    pub(crate) fn set_failure(&self, failure: Option<ScriptedFailure>) {
        self.state().failure = failure;
    }

    /// Membership lookups fail from now on, or succeed again.
    pub(crate) fn set_members_unavailable(&self, unavailable: bool) {
        self.state().members_unavailable = unavailable;
    }

    /// Lookups of users fail from now on, or succeed again.
    pub(crate) fn set_user_unavailable(&self, unavailable: bool) {
        self.state().user_unavailable = unavailable;
    }

    /// Tokens have this scope from now on.
    pub(crate) fn set_granted_scope(&self, scope: GrantedScope) {
        self.state().granted_scope = scope;
    }

    /// Access tokens have this lifetime from now on.
    pub(crate) fn set_expires_in(&self, expires_in: Duration) {
        self.state().expires_in = expires_in;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
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
    /// Holds the calls that arrive from now on, until [`Gate::release`].
    pub(crate) fn hold(&self) {
        self.permits.forget_permits(OPEN);
    }

    /// Lets held calls and later ones pass.
    pub(crate) fn release(&self) {
        self.permits.add_permits(OPEN);
    }

    /// The number of calls that have arrived.
    pub(crate) fn arrivals(&self) -> u32 {
        *self.arrivals.borrow()
    }

    /// Waits until this many calls have arrived.
    pub(crate) async fn arrival(&self, number: u32) {
        let mut arrivals = self.arrivals.subscribe();
        arrivals.wait_for(|count| *count >= number).await.unwrap();
    }

    /// Arrives, and waits while the gate holds calls.
    pub(crate) async fn pass(&self) {
        self.arrivals.send_modify(|count| *count += 1);
        drop(self.permits.acquire().await.unwrap());
    }
}

impl State {
    /// Issues the next tokens of a user. Access tokens read `access-USER-NUMBER`.
    fn issue(&mut self, user: UserId) -> UpstreamTokens {
        let number = self.pairs.entry(user).or_default();
        *number += 1;
        UpstreamTokens {
            access_token: format!("access-{user}-{number}").into(),
            refresh_token: format!("refresh-{user}-{number}").into(),
            expires_in: self.expires_in,
        }
    }

    fn check(&self) -> Result<(), UpstreamError> {
        match self.failure {
            None => Ok(()),
            Some(ScriptedFailure::Refused) => Err(UpstreamError::Refused("as scripted".to_owned())),
            Some(ScriptedFailure::Unconfirmed) => Err(UpstreamError::Unconfirmed("as scripted".to_owned())),
            Some(ScriptedFailure::Misconfigured) => Err(UpstreamError::Misconfigured("as scripted".to_owned())),
            Some(ScriptedFailure::Unavailable) => Err(UpstreamError::Unavailable("as scripted".into())),
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

    fn reads_organizations(&self) -> bool {
        true
    }

    fn authorize_url(&self, state: &str, challenge: &str, redirect_uri: &str) -> Url {
        let mut url = Url::parse("https://forgejo.example/login/oauth/authorize").unwrap();
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
            self.exchanges.pass().await;
            let mut state = self.state();
            state.check()?;
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose_secret()));
            match state.codes.remove(code.expose_secret()) {
                Some((user, expected, redirect)) if expected == challenge && redirect == redirect_uri => {
                    Ok(state.issue(user))
                }
                _ => Err(UpstreamError::Refused("client is not authorized".to_owned())),
            }
        })
    }

    fn refresh<'a>(&'a self, refresh_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamTokens, UpstreamError>> {
        Box::pin(async move {
            self.renewals.pass().await;
            let mut state = self.state();
            state.check()?;
            let mut pairs = state.pairs.iter();
            let valid =
                pairs.find(|(user, number)| refresh_token.expose_secret() == format!("refresh-{user}-{number}"));
            match valid.map(|(user, _)| *user) {
                Some(user) => Ok(state.issue(user)),
                None => Err(UpstreamError::Refused("token was already used".to_owned())),
            }
        })
    }

    fn user<'a>(&'a self, access_token: &'a SecretString) -> BoxFuture<'a, Result<UpstreamUser, UpstreamError>> {
        Box::pin(async move {
            if self.state().user_unavailable {
                return Err(UpstreamError::Unexpected("as scripted".to_owned()));
            }
            let id = access_token.expose_secret().split('-').nth(1);
            let id = id.and_then(|id| id.parse().ok().map(UserId));
            id.and_then(|id| self.state().users.get(&id).cloned())
                .ok_or_else(|| UpstreamError::LockedOut("403: prohibited".to_owned()))
        })
    }

    fn granted_scope<'a>(
        &'a self,
        _access_token: &'a SecretString,
    ) -> BoxFuture<'a, Result<GrantedScope, UpstreamError>> {
        Box::pin(async move { Ok(self.state().granted_scope.clone()) })
    }

    fn settings_url(&self) -> Url {
        Url::parse("https://forgejo.example/user/settings/applications").unwrap()
    }

    fn is_member<'a>(
        &'a self,
        _access_token: &'a SecretString,
        organization: &'a str,
        login: &'a str,
    ) -> BoxFuture<'a, Result<bool, UpstreamError>> {
        Box::pin(async move {
            let state = self.state();
            if state.members_unavailable {
                return Err(UpstreamError::Unavailable("as scripted".into()));
            }
            Ok(state
                .members
                .iter()
                .any(|(org, member)| org == organization && member == login))
        })
    }
}
