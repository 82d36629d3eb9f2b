//! Everything that the fake Forgejo knows: people, organisations, applications, grants, codes, browser sessions.
//!
//! The state is synchronous and lies behind one mutex; where time matters it is an argument. Nothing is ever forgotten
//! before the server ends: an authorization code, as in Forgejo, waits for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    counters::Counters,
    faults::Faults,
    tokens::{self, ACCESS, Claims, REFRESH, SigningKey},
};

pub(super) struct State {
    /// The instance's URL without a trailing slash.
    pub(super) base_url: String,
    pub(super) settings: Settings,
    pub(super) faults: Faults,
    pub(super) counters: Counters,
    pub(super) key: SigningKey,
    pub(super) users: Vec<User>,
    /// Members by organisation.
    pub(super) organisations: BTreeMap<String, BTreeSet<i64>>,
    /// Owner and name.
    pub(super) repositories: Vec<(i64, String)>,
    pub(super) applications: Vec<Application>,
    /// By grant id. At most one for each pair of user and application.
    pub(super) grants: BTreeMap<i64, Grant>,
    /// Unused codes.
    pub(super) codes: BTreeMap<String, Code>,
    /// Browser sessions by the value of their cookie.
    pub(super) sessions: BTreeMap<String, Session>,
    last_grant: i64,
}

/// What a test can turn while the server runs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) version: String,
    pub(super) access_lifetime: Duration,
    /// What `expires_in` says, if it is not the truth.
    pub(super) told_lifetime: Option<Duration>,
    pub(super) refresh_lifetime: Duration,
    pub(super) invalidate_refresh_tokens: bool,
    pub(super) echo_tokens: bool,
    /// Time between the checks and the effect of a request to the token endpoint.
    pub(super) token_window: Duration,
    /// Seconds that this server's clock is ahead.
    pub(super) clock_skew: i64,
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: i64,
    pub(super) login: String,
    pub(super) full_name: String,
    pub(super) password: String,
    pub(super) prohibited: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Application {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) client_id: String,
    pub(super) secret: String,
    pub(super) redirect_uris: Vec<String>,
    pub(super) confidential: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) id: i64,
    pub(super) user: i64,
    pub(super) application: i64,
    /// Fixed at the first consent.
    pub(super) scope: String,
    pub(super) nonce: String,
    /// The number of the one refresh token that is good.
    pub(super) counter: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) grant: i64,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) challenge_method: String,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) user: i64,
    /// The one consent page that is open; a second one takes its place.
    pub(super) consent: Option<Consent>,
}

/// What a consent was asked for, to be compared with what comes back.
#[derive(Debug, Clone)]
pub(super) struct Consent {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) state: String,
    pub(super) challenge: String,
    pub(super) challenge_method: String,
}

impl State {
    pub(super) fn new(base_url: String, settings: Settings) -> Self {
        Self {
            base_url,
            settings,
            faults: Faults::default(),
            counters: Counters::default(),
            key: SigningKey::random(),
            users: Vec::new(),
            organisations: BTreeMap::new(),
            repositories: Vec::new(),
            applications: Vec::new(),
            grants: BTreeMap::new(),
            codes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_grant: 0,
        }
    }

    /// Adds a user with one repository, and gives the user's id.
    pub(super) fn add_user(&mut self, login: &str, full_name: &str, password: &str) -> i64 {
        let id = 1 + i64::try_from(self.users.len()).unwrap_or(i64::MAX - 1);
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
            id: 1 + i64::try_from(self.applications.len()).unwrap_or(i64::MAX - 1),
            name: name.to_owned(),
            client_id: tokens::new_client_id(),
            secret: tokens::new_secret(),
            redirect_uris: redirect_uris.to_vec(),
            confidential,
        };
        self.applications.push(application.clone());
        application
    }

    /// Logins are compared as Forgejo does, without regard to case.
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
        self.applications
            .iter()
            .find(|application| application.client_id == client_id)
    }

    pub(super) fn grant_of(&self, user: i64, application: i64) -> Option<&Grant> {
        self.grants
            .values()
            .find(|grant| grant.user == user && grant.application == application)
    }

    pub(super) fn add_grant(&mut self, user: i64, application: i64, scope: &str, nonce: &str) -> i64 {
        self.last_grant += 1;
        let id = self.last_grant;
        let grant = Grant {
            id,
            user,
            application,
            scope: scope.to_owned(),
            nonce: nonce.to_owned(),
            counter: 0,
        };
        self.grants.insert(id, grant);
        id
    }

    /// The user takes back every grant: codes and tokens of them are dead at once.
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
            exp: now.saturating_add(seconds(self.settings.access_lifetime)),
            iat: now,
        })
    }

    pub(super) fn refresh_token(&self, grant: i64, counter: u64, now: i64) -> String {
        self.key.sign(&Claims {
            gnt: grant,
            tt: REFRESH,
            cnt: Some(counter),
            exp: now.saturating_add(seconds(self.settings.refresh_lifetime)),
            iat: now,
        })
    }

    /// The grant behind a good access token.
    pub(super) fn grant_behind(&self, access_token: &str, now: i64) -> Option<&Grant> {
        let claims = self.key.verify(access_token, now)?;
        (claims.tt == ACCESS).then(|| self.grants.get(&claims.gnt)).flatten()
    }
}

/// Whole seconds, as all of Forgejo's lifetimes are.
pub(super) fn seconds(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)
}
