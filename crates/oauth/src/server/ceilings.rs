//! How often a client and a grant may ask. Each number leaves room for whoever behaves, so that only floods meet it.
//!
//! A public client's name is no secret and is shared by all its users, so nothing that anyone can do in its name may use
//! up what its users need: their good tokens are counted by grant, and what is counted by the client's name is only what
//! was refused anyway.

use std::time::{Duration, SystemTime};

use super::respond::OAuthError;
use crate::limits::{Limiter, Rate, Wait};

/// The ceilings of one server.
#[derive(Debug)]
pub(super) struct Ceilings {
    registrations: Limiter<()>,
    management: Limiter<String>,
    client_requests: Limiter<String>,
    grant_requests: Limiter<String>,
    guesses: Limiter<String>,
}

/// A client that changes its registration.
const MANAGEMENT: Rate = Rate::new(20, Duration::from_secs(3));
/// A client that has proved who it is, at the token endpoint.
const CLIENT_REQUESTS: Rate = Rate::new(600, Duration::from_millis(100));
/// A grant whose code or refresh token has been shown.
const GRANT_REQUESTS: Rate = Rate::new(60, Duration::from_secs(1));
/// Codes and tokens that are no good, in the name of one client.
const GUESSES: Rate = Rate::new(100, Duration::from_secs(1));

impl Ceilings {
    pub(super) fn new(registrations_per_minute: u32) -> Self {
        Self {
            registrations: Limiter::new(Rate::per_minute(registrations_per_minute)),
            management: Limiter::new(MANAGEMENT),
            client_requests: Limiter::new(CLIENT_REQUESTS),
            grant_requests: Limiter::new(GRANT_REQUESTS),
            guesses: Limiter::new(GUESSES),
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
    pub(super) fn manage(&self, client_id: &str, now: SystemTime) -> Result<(), OAuthError> {
        self.management
            .take(client_id, now)
            .map_err(|wait| slow_down(client_id, wait))
    }

    /// One request of a client that has proved who it is.
    pub(super) fn client(&self, client_id: &str, now: SystemTime) -> Result<(), OAuthError> {
        self.client_requests
            .take(client_id, now)
            .map_err(|wait| slow_down(client_id, wait))
    }

    /// One use of a code or a refresh token of a grant.
    pub(super) fn grant(&self, grant: &str, client_id: &str, now: SystemTime) -> Result<(), OAuthError> {
        self.grant_requests
            .take(grant, now)
            .map_err(|wait| slow_down(client_id, wait))
    }

    /// A code or token that is no good: what to answer instead of `refused` when there have been too many.
    pub(super) fn guess(&self, client_id: &str, refused: OAuthError, now: SystemTime) -> OAuthError {
        match self.guesses.take(client_id, now) {
            Ok(()) => refused,
            Err(wait) => slow_down(client_id, wait),
        }
    }
}

fn slow_down(client_id: &str, wait: Wait) -> OAuthError {
    tracing::warn!(client = client_id, "a client asks more often than it may");
    OAuthError::SlowDown(wait)
}
