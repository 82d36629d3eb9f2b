//! How often a client, a grant and a user may ask, and all of them together.
//!
//! A public client's name is no secret and is shared by all its users, so nothing that anyone can do in its name may use
//! up what those need who are signed in: their good tokens are counted by grant and by user, and what is counted by the client's
//! name at the token endpoint is only what was refused anyway. **Signing in is another matter**: nobody is known yet when it
//! begins, and so it is the client's name that is counted.
//!
//! **Whatever anyone can make the store write has a global ceiling**, so that a flood ends in refusals and not in a store that
//! nobody gets a turn of. What is written for strangers (registrations, changes of them, sign-ins that begin, assertions) and
//! what is written for users who have signed in (tokens) do not share one, and no one user or client can use up what is
//! everybody's. Each number leaves room for whoever behaves. What is unknown or no good costs a look into the store and
//! takes nothing from a global ceiling.
//!
//! | what is written | one | all | the answer |
//! |---|---|---|---|
//! | a registration | | `registrations_per_minute` | 429 |
//! | a change of one | client: 20, then one each 3 s | 600, then 10 a second | 429, all: 503 |
//! | a sign-in that begins | client: a fifth of all | `sign_ins_per_minute` | a page, 503 |
//! | a signed assertion | client: 600, then 10 a second | 6,000, then 100 a second | 429, all: 503 |
//! | tokens | grant: 60, then one a second; user: a fiftieth of all | `tokens_per_minute` | 429, all: 503 |
//!
//! All answers carry `Retry-After`. Of the sign-ins it is the beginning that is counted: what follows, up to the code, is at
//! most one of each. Left out: limits by address, since many users come by one and one stranger by many (see [`limits`](crate::rate_limiter)).
//! So a stranger who begins sign-ins in the name of a public client, a fifth of `sign_ins_per_minute` and more, has its new
//! sign-ins refused for as long as that goes on, and with five such names everyone's. A tenth of a second after it stops there is room
//! again. Whoever is signed in stays so, and notices nothing.

use std::time::{Duration, SystemTime};

use super::response::OAuthError;
use crate::{
    config::Settings,
    ids::{ClientId, GrantId, UserId},
    rate_limiter::{Rate, RateLimiter, Wait},
};

/// The rate_limits of one server.
#[derive(Debug)]
pub(super) struct RateLimits {
    registrations: RateLimiter<()>,
    management: RateLimiter<ClientId>,
    all_management: RateLimiter<()>,
    /// The empty text stands for the page of connections.
    sign_ins: RateLimiter<ClientId>,
    all_sign_ins: RateLimiter<()>,
    client_requests: RateLimiter<ClientId>,
    all_assertions: RateLimiter<()>,
    grant_requests: RateLimiter<GrantId>,
    user_tokens: RateLimiter<UserId>,
    all_tokens: RateLimiter<()>,
    guesses: RateLimiter<ClientId>,
}

/// How long to wait before a sign-in may begin.
#[derive(Debug)]
pub(super) struct TooManySignIns;

/// A client that changes its registration.
const MANAGEMENT: Rate = Rate::new(20, Duration::from_secs(3));
/// All of these clients.
const ALL_MANAGEMENT: Rate = Rate::new(600, Duration::from_millis(100));
/// A client that has proved who it is, at the token endpoint.
const CLIENT_REQUESTS: Rate = Rate::new(600, Duration::from_millis(100));
/// All signed assertions.
const ALL_ASSERTIONS: Rate = Rate::new(6000, Duration::from_millis(10));
/// A grant whose code or refresh token has been shown.
const GRANT_REQUESTS: Rate = Rate::new(60, Duration::from_secs(1));
/// Codes and tokens that are no good, in the name of one client.
const GUESSES: Rate = Rate::new(100, Duration::from_secs(1));

/// How many clients it takes at least to use up what all sign-ins may.
const CLIENTS_SHARE: u32 = 5;
/// How many users it takes at least to use up what all tokens may.
const USERS_SHARE: u32 = 50;
/// What a share comes to at least: a user signs in and refreshes several clients at once.
const SMALLEST_SHARE: u32 = 10;

impl RateLimits {
    pub(super) fn new(settings: &Settings) -> Self {
        let share = |of: u32, among: u32| Rate::per_minute((of / among).max(SMALLEST_SHARE));
        let (sign_ins, tokens) = (settings.sign_ins_per_minute, settings.tokens_per_minute);
        Self {
            registrations: RateLimiter::new(Rate::per_minute(settings.registrations_per_minute)),
            management: RateLimiter::new(MANAGEMENT),
            all_management: RateLimiter::new(ALL_MANAGEMENT),
            sign_ins: RateLimiter::new(share(sign_ins, CLIENTS_SHARE)),
            all_sign_ins: RateLimiter::new(Rate::per_minute(sign_ins)),
            client_requests: RateLimiter::new(CLIENT_REQUESTS),
            all_assertions: RateLimiter::new(ALL_ASSERTIONS),
            grant_requests: RateLimiter::new(GRANT_REQUESTS),
            user_tokens: RateLimiter::new(share(tokens, USERS_SHARE)),
            all_tokens: RateLimiter::new(Rate::per_minute(tokens)),
            guesses: RateLimiter::new(GUESSES),
        }
    }

    /// One new registration, of anyone.
    pub(super) fn register(&self, now: SystemTime) -> Result<(), OAuthError> {
        self.registrations.take(&(), now).map_err(|wait| {
            tracing::warn!("more clients register than may");
            OAuthError::SlowDown(wait)
        })
    }

    /// One look at or change of a registration, by its owner.
    pub(super) fn manage(&self, client_id: &ClientId, now: SystemTime) -> Result<(), OAuthError> {
        self.management
            .take(client_id, now)
            .map_err(|wait| slow_down(client_id, wait))
    }

    /// One change of a registration, of anyone.
    pub(super) fn change(&self, now: SystemTime) -> Result<(), OAuthError> {
        self.all_management.take(&(), now).map_err(|wait| busy("changes", wait))
    }

    /// One sign-in that begins, for a client or for the page of connections.
    pub(super) fn sign_in(&self, client_id: Option<&ClientId>, now: SystemTime) -> Result<(), TooManySignIns> {
        let none = ClientId(String::new());
        let client_id = client_id.unwrap_or(&none);
        self.sign_ins.take(client_id, now).map_err(|_| {
            tracing::warn!(client = client_id.0, "more sign-ins begin for a client than may");
            TooManySignIns
        })?;
        self.all_sign_ins.take(&(), now).map_err(|_| {
            tracing::warn!("more sign-ins begin than may");
            TooManySignIns
        })
    }

    /// One assertion that a client has signed.
    pub(super) fn assertion(&self, now: SystemTime) -> Result<(), OAuthError> {
        self.all_assertions
            .take(&(), now)
            .map_err(|wait| busy("assertions", wait))
    }

    /// One request of a client that has proved who it is.
    pub(super) fn client(&self, client_id: &ClientId, now: SystemTime) -> Result<(), OAuthError> {
        self.client_requests
            .take(client_id, now)
            .map_err(|wait| slow_down(client_id, wait))
    }

    /// One use of a code or a refresh token of a user's grant, which is good as far as can be told without a change.
    pub(super) fn tokens(
        &self,
        grant: &GrantId,
        user: UserId,
        client_id: &ClientId,
        now: SystemTime,
    ) -> Result<(), OAuthError> {
        let own = |wait| slow_down(client_id, wait);
        self.grant_requests.take(grant, now).map_err(own)?;
        self.user_tokens.take(&user, now).map_err(own)?;
        self.all_tokens.take(&(), now).map_err(|wait| busy("tokens", wait))
    }

    /// A code or token that is no good: what to answer instead of `refused` when there have been too many.
    pub(super) fn guess(&self, client_id: &ClientId, refused: OAuthError, now: SystemTime) -> OAuthError {
        match self.guesses.take(client_id, now) {
            Ok(()) => refused,
            Err(wait) => slow_down(client_id, wait),
        }
    }
}

fn slow_down(client_id: &ClientId, wait: Wait) -> OAuthError {
    tracing::warn!(client = client_id.0, "a client asks more often than it may");
    OAuthError::SlowDown(wait)
}

fn busy(what: &'static str, wait: Wait) -> OAuthError {
    tracing::warn!(what, "more is asked for than may be, by all together");
    OAuthError::Busy(wait)
}
