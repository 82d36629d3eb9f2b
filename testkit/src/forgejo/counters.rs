//! What a test can read afterwards: how often what was asked.

use std::collections::BTreeMap;

/// A snapshot of the counters since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests by path, those included that a fault met.
    pub requests: BTreeMap<String, u64>,
    /// Codes exchanged for tokens.
    pub exchanges: u64,
    /// Code exchanges refused with an error of the token endpoint.
    pub exchange_refusals: u64,
    /// Refresh tokens exchanged for new ones, those included whose answer was then lost.
    pub refreshes: u64,
    /// Refreshes refused with an error of the token endpoint.
    pub refresh_refusals: u64,
    /// The login of each `GET /api/v1/user` that was answered with a user, in order.
    pub users_asked: Vec<String>,
}

impl Counters {
    /// Requests to one path.
    pub fn requests_to(&self, path: &str) -> u64 {
        self.requests.get(path).copied().unwrap_or(0)
    }

    pub(super) fn request(&mut self, path: &str) {
        *self.requests.entry(path.to_owned()).or_default() += 1;
    }
}
