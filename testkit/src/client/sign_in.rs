//! The state of a sign-in: endpoints, registration, tokens. Sessions of one client share it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;
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

#[derive(Debug, Clone)]
pub(super) struct AuthorizationServer {
    pub(super) resource: String,
    pub(super) issuer: String,
    pub(super) scope: Option<String>,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) registration_endpoint: Option<Url>,
    pub(super) iss_advertised: bool,
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

impl AuthorizationServer {
    /// Combines both metadata documents, and refuses what strict clients refuse.
    pub(super) fn from_metadata(resource: &Value, issuer: &str, server: &Value) -> Result<Self, ClientError> {
        let unexpected = |what: &str| ClientError::Unexpected(format!("authorization server metadata: {what}"));
        // RFC 8414 section 3.3: identical, not merely equivalent.
        if server["issuer"] != issuer {
            return Err(unexpected("issuer is not the one that the resource names"));
        }
        if !texts(&server["code_challenge_methods_supported"]).contains(&"S256") {
            return Err(unexpected("no S256"));
        }
        let endpoint = |name: &str| server[name].as_str().and_then(|url| Url::parse(url).ok());
        let required = |name: &str| endpoint(name).ok_or_else(|| unexpected(&format!("no {name}")));
        let scopes = texts(&resource["scopes_supported"]);
        Ok(Self {
            resource: resource["resource"].as_str().unwrap_or_default().to_owned(),
            issuer: issuer.to_owned(),
            scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
            authorization_endpoint: required("authorization_endpoint")?,
            token_endpoint: required("token_endpoint")?,
            registration_endpoint: endpoint("registration_endpoint"),
            iss_advertised: server["authorization_response_iss_parameter_supported"] == true,
        })
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

fn texts(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}

fn random_text() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("a machine without randomness cannot run these tests");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
