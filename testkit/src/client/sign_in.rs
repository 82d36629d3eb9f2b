//! The state of a sign-in: endpoints, registration, tokens. Sessions of one client share it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::ClientError;

/// The shared state. Its fields are independent, so a poisoned lock is still consistent; never held
/// across an await.
#[derive(Clone, Default)]
pub(super) struct SignIn(Arc<Mutex<SignInState>>);

#[derive(Default)]
pub(super) struct SignInState {
    pub(super) resource_metadata: Option<Url>,
    pub(super) server: Option<AuthorizationServer>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<String>,
    pub(super) pending: Option<PendingAuthorization>,
    pub(super) code: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Option<String>,
}

/// The metadata of a protected resource (RFC 9728 section 2).
#[derive(Clone, Default, Deserialize)]
pub(super) struct Resource {
    pub(super) resource: String,
    pub(super) authorization_servers: Vec<String>,
    #[serde(default)]
    pub(super) scopes_supported: Vec<String>,
}

/// The metadata of an authorization server (RFC 8414 section 2), with the resource that names it.
#[derive(Clone, Deserialize)]
pub(super) struct AuthorizationServer {
    #[serde(skip)]
    pub(super) resource: Resource,
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) registration_endpoint: Option<Url>,
    #[serde(default)]
    pub(super) code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

#[derive(Clone)]
pub(super) struct PendingAuthorization {
    pub(super) state: String,
    pub(super) verifier: String,
}

impl SignIn {
    pub(super) fn state(&self) -> MutexGuard<'_, SignInState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn server(&self) -> Result<AuthorizationServer, ClientError> {
        let server = self.state().server.clone();
        server.ok_or(ClientError::TooEarly("discover"))
    }
}

impl PendingAuthorization {
    pub(super) fn random() -> Self {
        Self {
            state: random_text(),
            verifier: random_text(),
        }
    }

    /// The S256 challenge of the verifier (RFC 7636 section 4.2).
    pub(super) fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier))
    }
}

/// Without tokens and secrets.
impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn")
            .field("client_id", &self.state().client_id)
            .finish_non_exhaustive()
    }
}

fn random_text() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("a machine without randomness cannot run these tests");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
