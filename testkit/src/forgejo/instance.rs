//! The data of the instance: users, applications, grants, codes, browser sessions.
//!
//! The data is synchronous and lies behind one mutex; time is an argument. Nothing expires before
//! the server ends: an authorization code, as in Forgejo, stays valid.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    controls::Counters,
    faults::Faults,
    tokens::{self, ACCESS, Claims, REFRESH, SigningKey},
};

#[derive(Default)]
pub(super) struct Instance {
    pub(super) base_url: String,
    pub(super) lifetimes: Lifetimes,
    /// The value of `expires_in`, if it differs from the lifetime of access tokens.
    pub(super) advertised_lifetime: Option<Duration>,
    pub(super) clock_skew: i64,
    pub(super) faults: Faults,
    pub(super) counters: Counters,
    pub(super) key: SigningKey,
    pub(super) users: Vec<User>,
    /// Owner and name.
    pub(super) repositories: Vec<(i64, String)>,
    pub(super) applications: Vec<Application>,
    /// By grant id. At most one for each pair of user and application.
    pub(super) grants: BTreeMap<i64, Grant>,
    pub(super) codes: BTreeMap<String, Code>,
    /// Browser sessions by the value of their cookie.
    pub(super) sessions: BTreeMap<String, BrowserSession>,
    last_grant: i64,
}

/// The lifetimes of new tokens.
pub(super) struct Lifetimes {
    pub(super) access: Duration,
    pub(super) refresh: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: i64,
    pub(super) login: String,
    pub(super) full_name: String,
    pub(super) password: String,
    pub(super) prohibited: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Application {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) client_id: String,
    pub(super) secret: String,
    pub(super) redirect_uris: Vec<String>,
    pub(super) confidential: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) id: i64,
    pub(super) user: i64,
    pub(super) application: i64,
    /// Fixed at the first consent.
    pub(super) scope: String,
    /// The number of the one valid refresh token.
    pub(super) counter: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) grant: i64,
    pub(super) request: AuthorizationRequest,
}

#[derive(Debug, Clone)]
pub(super) struct BrowserSession {
    pub(super) user: i64,
    /// The one open consent page; a second one replaces it.
    pub(super) consent: Option<AuthorizationRequest>,
}

/// The request behind a consent page or a code, to be compared with its submission or exchange.
#[derive(Debug, Clone)]
pub(super) struct AuthorizationRequest {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) state: String,
    pub(super) challenge: String,
    pub(super) challenge_method: String,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access: Duration::from_secs(3600),
            refresh: Duration::from_secs(730 * 3600),
        }
    }
}

impl Instance {
    pub(super) fn add_user(&mut self, login: &str, full_name: &str, password: &str) -> i64 {
        let id = next_id(&self.users);
        self.users.push(User {
            id,
            login: login.to_owned(),
            full_name: full_name.to_owned(),
            password: password.to_owned(),
            prohibited: false,
        });
        self.repositories.push((id, format!("{login}-notes")));
        id
    }

    pub(super) fn add_application(&mut self, name: &str, redirect_uris: &[String], confidential: bool) -> Application {
        let application = Application {
            id: next_id(&self.applications),
            name: name.to_owned(),
            client_id: tokens::new_client_id(),
            secret: tokens::new_secret(),
            redirect_uris: redirect_uris.to_vec(),
            confidential,
        };
        self.applications.push(application.clone());
        application
    }

    /// Compares logins without regard to case, as Forgejo does.
    pub(super) fn user_named(&self, login: &str) -> Option<&User> {
        self.users.iter().find(|user| user.login.eq_ignore_ascii_case(login))
    }

    pub(super) fn user(&self, id: i64) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    pub(super) fn with_password(&self, login: &str, password: &str) -> Option<&User> {
        self.user_named(login).filter(|user| user.password == password)
    }

    pub(super) fn application(&self, client_id: &str) -> Option<&Application> {
        let mut applications = self.applications.iter();
        applications.find(|application| application.client_id == client_id)
    }

    pub(super) fn client_id_of(&self, application: i64) -> &str {
        let mut applications = self.applications.iter();
        let found = applications.find(|other| other.id == application);
        found.map_or("", |found| &found.client_id)
    }

    pub(super) fn grant_of(&self, user: i64, application: i64) -> Option<&Grant> {
        let mut grants = self.grants.values();
        grants.find(|grant| grant.user == user && grant.application == application)
    }

    pub(super) fn add_grant(&mut self, user: i64, application: i64, scope: &str) -> i64 {
        self.last_grant += 1;
        let grant = Grant {
            id: self.last_grant,
            user,
            application,
            scope: scope.to_owned(),
            counter: 0,
        };
        self.grants.insert(grant.id, grant);
        self.last_grant
    }

    pub(super) fn restore_grants(&mut self, grants: &[Grant]) {
        self.grants = grants.iter().map(|grant| (grant.id, grant.clone())).collect();
        self.last_grant = self.grants.keys().max().copied().unwrap_or_default();
    }

    pub(super) fn revoke(&mut self, user: i64) -> usize {
        let before = self.grants.len();
        self.grants.retain(|_, grant| grant.user != user);
        self.codes.retain(|_, code| self.grants.contains_key(&code.grant));
        before - self.grants.len()
    }

    pub(super) fn access_token(&self, grant: i64, now: i64) -> String {
        self.key.sign(&Claims {
            gnt: grant,
            tt: ACCESS,
            cnt: None,
            exp: now.saturating_add(seconds(self.lifetimes.access)),
            iat: now,
        })
    }

    pub(super) fn refresh_token(&self, grant: i64, counter: u64, now: i64) -> String {
        self.key.sign(&Claims {
            gnt: grant,
            tt: REFRESH,
            cnt: Some(counter),
            exp: now.saturating_add(seconds(self.lifetimes.refresh)),
            iat: now,
        })
    }

    pub(super) fn user_behind(&self, access_token: &str, now: i64) -> Option<(&User, &Grant)> {
        let claims = self.key.verify(access_token, now)?;
        let grant = self.grants.get(&claims.gnt).filter(|_| claims.tt == ACCESS)?;
        Some((self.user(grant.user)?, grant))
    }
}

fn next_id<T>(existing: &[T]) -> i64 {
    1 + i64::try_from(existing.len()).unwrap_or(i64::MAX - 1)
}

/// Whole seconds, the unit of all of Forgejo's lifetimes.
pub(super) fn seconds(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)
}
