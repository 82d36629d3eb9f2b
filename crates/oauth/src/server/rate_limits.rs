//! Rate limits of clients, grants and users, and of all of them together.
//!
//! A public client's identifier is no secret, and all its users share it. Requests that anyone can
//! send with it must not use up the limits of signed-in users: their tokens count by grant and by
//! user, and only refused requests count by the client's identifier at the token endpoint. Sign-ins
//! do count by client, since no user is known when one begins.
//!
//! **Each kind of write that anyone can cause has a global limit**, so that a flood leads to
//! refusals and not to a store without a free turn. The limits for strangers (registrations and
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
//! sign-ins of that client, and with five clients those of everyone, until a tenth of a second
//! after the flood ends. Signed-in users are not affected.

use std::time::{Duration, SystemTime};

use super::oauth_error::OAuthError;
use crate::{
    config::Config,
    ids::{ClientId, GrantId, UserId},
    rate_limiter::{RateLimiter, RequestRate, RetryAfter},
};

/// The rate limits of a server.
#[derive(Debug)]
pub(super) struct RateLimits {
    registrations: RateLimiter<()>,
    client_management: RateLimiter<ClientId>,
    all_management: RateLimiter<()>,
    /// `None` stands for *Your connections*.
    client_sign_ins: RateLimiter<Option<ClientId>>,
    all_sign_ins: RateLimiter<()>,
    client_requests: RateLimiter<ClientId>,
    all_assertions: RateLimiter<()>,
    grant_tokens: RateLimiter<GrantId>,
    user_tokens: RateLimiter<UserId>,
    all_tokens: RateLimiter<()>,
    invalid_grants: RateLimiter<ClientId>,
}

/// Management requests of one client.
const CLIENT_MANAGEMENT: RequestRate = RequestRate::new(20, Duration::from_secs(3));
/// Changes of registrations by all clients.
const ALL_MANAGEMENT: RequestRate = RequestRate::new(600, Duration::from_millis(100));
/// Authenticated requests of one client at the token and revocation endpoints.
const CLIENT_REQUESTS: RequestRate = RequestRate::new(600, Duration::from_millis(100));
/// Signed assertions of all clients.
const ALL_ASSERTIONS: RequestRate = RequestRate::new(6000, Duration::from_millis(10));
/// Token requests of one grant.
const GRANT_TOKENS: RequestRate = RequestRate::new(60, Duration::from_secs(1));
/// Invalid codes and refresh tokens of one client.
const INVALID_GRANTS: RequestRate = RequestRate::new(100, Duration::from_secs(1));

/// The smallest number of clients that can use up the limit of all sign-ins.
const CLIENTS_PER_SIGN_IN_LIMIT: u32 = 5;
/// The smallest number of users that can use up the limit of all tokens.
const USERS_PER_TOKEN_LIMIT: u32 = 50;
/// The smallest share of a limit: a user signs in and refreshes several clients at once.
const SMALLEST_SHARE: u32 = 10;

impl RateLimits {
    pub(super) fn new(config: &Config) -> Self {
        let share = |of: u32, among: u32| RequestRate::per_minute((of / among).max(SMALLEST_SHARE));
        let (sign_ins, tokens) = (config.sign_ins_per_minute, config.tokens_per_minute);
        Self {
            registrations: RateLimiter::new(RequestRate::per_minute(config.registrations_per_minute)),
            client_management: RateLimiter::new(CLIENT_MANAGEMENT),
            all_management: RateLimiter::new(ALL_MANAGEMENT),
            client_sign_ins: RateLimiter::new(share(sign_ins, CLIENTS_PER_SIGN_IN_LIMIT)),
            all_sign_ins: RateLimiter::new(RequestRate::per_minute(sign_ins)),
            client_requests: RateLimiter::new(CLIENT_REQUESTS),
            all_assertions: RateLimiter::new(ALL_ASSERTIONS),
            grant_tokens: RateLimiter::new(GRANT_TOKENS),
            user_tokens: RateLimiter::new(share(tokens, USERS_PER_TOKEN_LIMIT)),
            all_tokens: RateLimiter::new(RequestRate::per_minute(tokens)),
            invalid_grants: RateLimiter::new(INVALID_GRANTS),
        }
    }

    /// Counts a registration.
    pub(super) fn registration(&self, now: SystemTime) -> Result<(), OAuthError> {
        self.registrations.check(&(), now).map_err(|wait| {
            tracing::warn!("registrations exceed oauth.registrations_per_minute");
            OAuthError::TooManyRequests(wait)
        })
    }

    /// Counts a read or change of a registration by its client.
    pub(super) fn management(&self, client_id: &ClientId, now: SystemTime) -> Result<(), OAuthError> {
        self.client_management
            .check(client_id, now)
            .map_err(|wait| too_many_requests(client_id, wait))
    }

    /// Counts a change of a registration.
    pub(super) fn registration_change(&self, now: SystemTime) -> Result<(), OAuthError> {
        self.all_management
            .check(&(), now)
            .map_err(|wait| overloaded("registration changes", wait))
    }

    /// Counts a sign-in that begins, for a client or for *Your connections*.
    pub(super) fn sign_in(&self, client_id: Option<&ClientId>, now: SystemTime) -> Result<(), RetryAfter> {
        let client = client_id.map(|id| id.0.as_str());
        self.client_sign_ins
            .check(&client_id.cloned(), now)
            .inspect_err(|_| tracing::warn!(client, "sign-ins of a client exceed their rate limit"))?;
        self.all_sign_ins
            .check(&(), now)
            .inspect_err(|_| tracing::warn!("sign-ins of all clients exceed oauth.sign_ins_per_minute"))
    }

    /// Counts a signed assertion.
    pub(super) fn assertion(&self, now: SystemTime) -> Result<(), OAuthError> {
        self.all_assertions
            .check(&(), now)
            .map_err(|wait| overloaded("assertions", wait))
    }

    /// Counts a request of an authenticated client.
    pub(super) fn client_request(&self, client_id: &ClientId, now: SystemTime) -> Result<(), OAuthError> {
        self.client_requests
            .check(client_id, now)
            .map_err(|wait| too_many_requests(client_id, wait))
    }

    /// Counts a use of a code or refresh token that is valid as far as can be told without a write.
    pub(super) fn token_request(
        &self,
        grant: &GrantId,
        user: UserId,
        client_id: &ClientId,
        now: SystemTime,
    ) -> Result<(), OAuthError> {
        let own = |wait| too_many_requests(client_id, wait);
        self.grant_tokens.check(grant, now).map_err(own)?;
        self.user_tokens.check(&user, now).map_err(own)?;
        self.all_tokens
            .check(&(), now)
            .map_err(|wait| overloaded("token requests", wait))
    }

    /// Counts an invalid code or refresh token. Returns `error`, or the response to a client with
    /// too many of them.
    pub(super) fn invalid_grant_attempt(&self, client_id: &ClientId, error: OAuthError, now: SystemTime) -> OAuthError {
        match self.invalid_grants.check(client_id, now) {
            Ok(()) => error,
            Err(wait) => too_many_requests(client_id, wait),
        }
    }
}

fn too_many_requests(client_id: &ClientId, wait: RetryAfter) -> OAuthError {
    tracing::warn!(client = client_id.0, "client exceeds its rate limit");
    OAuthError::TooManyRequests(wait)
}

fn overloaded(what: &'static str, wait: RetryAfter) -> OAuthError {
    tracing::warn!(what, "requests of all clients together exceed a rate limit");
    OAuthError::Overloaded(wait)
}
