//! Rate limits of clients, grants and users, and of all of them together.
//!
//! A public client's identifier is no secret, and all its users share it. Requests that anyone can
//! send with it must not use up the limits of signed-in users: their tokens count by grant and by
//! user, and a code or refresh token that is invalid counts towards no limit, so that a client
//! always learns that its own is. Sign-ins do count by client, since no user is known when one
//! begins.
//!
//! **Each kind of write that anyone can cause has a global limit**, so that a flood is refused and
//! does not occupy the only writer of the database. The limits for strangers (registrations and
//! their changes, sign-ins, assertions) are apart from the one for signed-in users (tokens), and no
//! single user or client can use up a global limit. Lookups of unknown or invalid values do not
//! count towards global limits.
//!
//! | write | one client, grant or user | all | response |
//! |---|---|---|---|
//! | registration | | `registrations_per_minute` | 429 |
//! | change of a registration | client: 20, then one each 3 s | 600, then 10 a second | 429, all: 503 |
//! | begin of a sign-in | client: a fifth of all | `sign_ins_per_minute` | a page, 503 |
//! | signed assertion | client: 600, then 10 a second | 6,000, then 100 a second | 429, all: 503 |
//! | tokens | grant: 60, then one a second; user: a fiftieth of all | `tokens_per_minute` | 429, all: 503 |
//!
//! All responses carry `Retry-After`. Only the begin of a sign-in counts: each of its later steps
//! happens at most once. There are no limits by address, since many users share one address and a
//! stranger has many (see [`rate_limiter`](crate::rate_limiter)). A stranger who begins sign-ins
//! with the identifier of a public client at a fifth of `sign_ins_per_minute` therefore blocks new
//! sign-ins of that client until a moment after the flood ends (a tenth of a second by default),
//! and with five clients those of everyone (with fewer if `sign_ins_per_minute` is below 50).
//! Signed-in users are not affected.

use std::{hash::Hash, sync::Arc, time::Duration};

use super::oauth_error::OAuthError;
use crate::{
    config::Config,
    ids::{ClientId, GrantId, UserId},
    ports::Clock,
    rate_limiter::{RateLimiter, RetryAfter},
};

/// The rate limits of a server.
#[derive(Debug)]
pub(super) struct RateLimits {
    clock: Arc<dyn Clock>,
    registrations: RateLimiter<()>,
    client_management: RateLimiter<ClientId>,
    all_management: RateLimiter<()>,
    /// `None` stands for *Your connections*.
    client_sign_ins: RateLimiter<Option<ClientId>>,
    all_sign_ins: RateLimiter<()>,
    /// Authenticated requests at the token and revocation endpoints.
    client_requests: RateLimiter<ClientId>,
    all_assertions: RateLimiter<()>,
    grant_tokens: RateLimiter<GrantId>,
    user_tokens: RateLimiter<UserId>,
    all_tokens: RateLimiter<()>,
}

/// The smallest number of clients that can use up the limit of all sign-ins.
const CLIENTS_PER_SIGN_IN_LIMIT: u32 = 5;
/// The smallest number of users that can use up the limit of all tokens.
const USERS_PER_TOKEN_LIMIT: u32 = 50;
/// The smallest share of a limit: a user signs in and refreshes several clients at once.
const SMALLEST_SHARE: u32 = 10;

impl RateLimits {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let share = |of: u32, among: u32| (of / among).max(SMALLEST_SHARE);
        let (sign_ins, tokens) = (config.sign_ins_per_minute, config.tokens_per_minute);
        Self {
            clock,
            registrations: RateLimiter::per_minute(config.registrations_per_minute),
            client_management: RateLimiter::new(20, Duration::from_secs(3)),
            all_management: RateLimiter::new(600, Duration::from_millis(100)),
            client_sign_ins: RateLimiter::per_minute(share(sign_ins, CLIENTS_PER_SIGN_IN_LIMIT)),
            all_sign_ins: RateLimiter::per_minute(sign_ins),
            client_requests: RateLimiter::new(600, Duration::from_millis(100)),
            all_assertions: RateLimiter::new(6000, Duration::from_millis(10)),
            grant_tokens: RateLimiter::new(60, Duration::from_secs(1)),
            user_tokens: RateLimiter::per_minute(share(tokens, USERS_PER_TOKEN_LIMIT)),
            all_tokens: RateLimiter::per_minute(tokens),
        }
    }

    /// Counts a registration.
    pub(super) fn registration(&self) -> Result<(), OAuthError> {
        self.registrations.check(&(), self.clock.uptime()).map_err(|wait| {
            tracing::warn!("oauth.registrations_per_minute exceeded: registration answered with 429");
            OAuthError::TooManyRequests(wait)
        })
    }

    /// Counts a read or change of a registration by its client.
    pub(super) fn management(&self, client_id: &ClientId) -> Result<(), OAuthError> {
        check_client(
            &self.client_management,
            client_id,
            "client",
            client_id,
            self.clock.uptime(),
        )
    }

    /// Counts a change of a registration.
    pub(super) fn registration_change(&self) -> Result<(), OAuthError> {
        check_all(&self.all_management, "registration changes", self.clock.uptime())
    }

    /// Counts a sign-in that begins, for a client or for *Your connections*.
    pub(super) fn sign_in(&self, client_id: Option<&ClientId>) -> Result<(), RetryAfter> {
        let client = client_id.map(|id| id.0.as_str());
        self.client_sign_ins
            .check(&client_id.cloned(), self.clock.uptime())
            .inspect_err(|_| tracing::warn!(client, "client exceeds its share of oauth.sign_ins_per_minute"))?;
        self.all_sign_ins
            .check(&(), self.clock.uptime())
            .inspect_err(|_| tracing::warn!("oauth.sign_ins_per_minute exceeded: sign-in refused"))
    }

    /// Counts a signed assertion.
    pub(super) fn assertion(&self) -> Result<(), OAuthError> {
        check_all(&self.all_assertions, "assertions", self.clock.uptime())
    }

    /// Counts a request of an authenticated client.
    pub(super) fn client_request(&self, client_id: &ClientId) -> Result<(), OAuthError> {
        check_client(
            &self.client_requests,
            client_id,
            "client",
            client_id,
            self.clock.uptime(),
        )
    }

    /// Counts a use of a code or refresh token that is valid as far as a read can show.
    pub(super) fn token_request(&self, grant: &GrantId, user: UserId, client_id: &ClientId) -> Result<(), OAuthError> {
        check_client(&self.grant_tokens, grant, "grant", client_id, self.clock.uptime())?;
        check_client(&self.user_tokens, &user, "user", client_id, self.clock.uptime())?;
        check_all(
            &self.all_tokens,
            "token requests (oauth.tokens_per_minute)",
            self.clock.uptime(),
        )
    }
}

/// Counts a request towards the limit of a client, or of one of its grants or users.
fn check_client<K: Clone + Eq + Hash>(
    limiter: &RateLimiter<K>,
    key: &K,
    subject: &'static str,
    client_id: &ClientId,
    now: Duration,
) -> Result<(), OAuthError> {
    limiter.check(key, now).map_err(|wait| {
        tracing::warn!(
            client = client_id.0,
            "rate limit of one {subject} exceeded: answered with 429"
        );
        OAuthError::TooManyRequests(wait)
    })
}

/// Counts a request towards a limit of all clients.
fn check_all(limiter: &RateLimiter<()>, what: &'static str, now: Duration) -> Result<(), OAuthError> {
    limiter.check(&(), now).map_err(|wait| {
        tracing::warn!("rate limit of all {what} exceeded: answered with 503");
        OAuthError::Overloaded(wait)
    })
}
