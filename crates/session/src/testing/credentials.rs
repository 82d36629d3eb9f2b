//! The credential of a user, renewed or refused as scripted.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use secrecy::SecretString;

use super::{lock, scheduling_point};
use crate::ports::{BoxError, BoxFuture, Clock, Credential, CredentialError, Credentials, SystemClock};

/// A token that looks good and that the upstream rejects.
pub const REJECTED_TOKEN: &str = "rejected";

const GOOD_TOKEN: &str = "token";

/// The outcome of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The refresh succeeds.
    Renewed,
    /// The refresh fails with [`CredentialError::Transient`].
    Transient,
    /// The refresh fails with [`CredentialError::Terminal`].
    Terminal,
}

/// The credential of one user.
#[derive(Debug)]
pub struct ScriptedCredentials {
    clock: Arc<dyn Clock>,
    /// `None`: the credential never expires.
    lifetime: Option<Duration>,
    refreshes: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: &'static str,
    expires_at: SystemTime,
    refresh_outcome: RefreshOutcome,
    refresh_delay: Duration,
}

/// The expiry of a credential that never expires.
pub(super) fn far_future() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)
}

impl ScriptedCredentials {
    /// A credential that expires `lifetime` after now, and after each refresh.
    #[must_use]
    pub fn expiring(clock: Arc<dyn Clock>, lifetime: Duration) -> Self {
        Self::new(clock, Some(lifetime), RefreshOutcome::Renewed)
    }

    /// A credential that never expires. Its refresh fails for now.
    #[must_use]
    pub fn permanent() -> Self {
        Self::new(Arc::new(SystemClock), None, RefreshOutcome::Transient)
    }

    fn new(clock: Arc<dyn Clock>, lifetime: Option<Duration>, refresh_outcome: RefreshOutcome) -> Self {
        let state = State {
            token: GOOD_TOKEN,
            expires_at: lifetime.map_or_else(far_future, |lifetime| clock.now() + lifetime),
            refresh_outcome,
            refresh_delay: Duration::ZERO,
        };
        Self {
            clock,
            lifetime,
            refreshes: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    /// Sets the outcome of every further refresh.
    pub fn set_refresh_outcome(&self, outcome: RefreshOutcome) {
        lock(&self.state).refresh_outcome = outcome;
    }

    /// Sets the time that every further refresh takes.
    pub fn set_refresh_delay(&self, delay: Duration) {
        lock(&self.state).refresh_delay = delay;
    }

    /// The number of refreshes so far, failed ones included.
    pub fn refresh_count(&self) -> usize {
        self.refreshes.load(Ordering::SeqCst)
    }

    /// The expiry of the current credential.
    pub fn expires_at(&self) -> SystemTime {
        lock(&self.state).expires_at
    }

    /// Replaces the credential by a good one with a full lifetime, as a new sign-in or a refresh
    /// does.
    pub fn replace(&self) {
        let mut state = lock(&self.state);
        state.token = GOOD_TOKEN;
        if let Some(lifetime) = self.lifetime {
            state.expires_at = self.clock.now() + lifetime;
        }
    }

    /// Revokes the credential at the upstream: only a backend that presents [`REJECTED_TOKEN`]
    /// notices.
    pub fn revoke_upstream(&self) {
        lock(&self.state).token = REJECTED_TOKEN;
    }

    fn credential(&self) -> Credential {
        let state = lock(&self.state);
        Credential {
            access_token: SecretString::from(state.token),
            expires_at: state.expires_at,
        }
    }
}

impl Credentials for ScriptedCredentials {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            scheduling_point().await;
            if self.lifetime.is_some() && self.expires_at() <= self.clock.now() {
                return self.refresh().await;
            }
            Ok(self.credential())
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async {
            self.refreshes.fetch_add(1, Ordering::SeqCst);
            scheduling_point().await;
            let delay = lock(&self.state).refresh_delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let outcome = lock(&self.state).refresh_outcome;
            match outcome {
                RefreshOutcome::Renewed => self.replace(),
                RefreshOutcome::Transient => return Err(CredentialError::Transient(BoxError::from("not now"))),
                RefreshOutcome::Terminal => return Err(CredentialError::Terminal(BoxError::from("not any more"))),
            }
            Ok(self.credential())
        })
    }
}
