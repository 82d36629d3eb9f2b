//! What a client knows after its sign-in: endpoints, its registration, its tokens. Sessions of one client share it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::ClientError;

/// The shared cell. Its fields do not depend on each other, so a poisoned lock is still whole; never held across an await.
#[derive(Clone, Default)]
pub(super) struct SignIn(Arc<Mutex<Known>>);

#[derive(Default)]
pub(super) struct Known {
    pub(super) resource_metadata: Option<Url>,
    pub(super) server: Option<Server>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<String>,
    pub(super) pending: Option<Pending>,
    pub(super) code: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Option<String>,
}

/// What discovery found.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) resource: String,
    pub(super) issuer: String,
    pub(super) scope: Option<String>,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) registration_endpoint: Option<Url>,
    pub(super) iss_advertised: bool,
}

/// An authorization that is under way.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) state: String,
    pub(super) verifier: String,
}

impl SignIn {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn server(&self) -> Result<Server, ClientError> {
        let server = self.known().server.clone();
        server.ok_or(ClientError::TooEarly("discover"))
    }
}

impl Server {
    /// Puts both metadata documents together, and refuses what real clients refuse.
    pub(super) fn from_metadata(resource: &Value, issuer: &str, server: &Value) -> Result<Self, ClientError> {
        let unexpected = |what: &str| ClientError::Unexpected(format!("authorization server metadata: {what}"));
        // RFC 8414 section 3.3: identical, not merely equivalent.
        if server["issuer"] != issuer {
            return Err(unexpected("issuer is not the one that the resource names"));
        }
        if !contains(&server["code_challenge_methods_supported"], "S256") {
            return Err(unexpected("no S256"));
        }
        let endpoint = |name: &str| server[name].as_str().and_then(|url| Url::parse(url).ok());
        let scopes: Vec<&str> = resource["scopes_supported"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        Ok(Self {
            resource: resource["resource"].as_str().unwrap_or_default().to_owned(),
            issuer: issuer.to_owned(),
            scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
            authorization_endpoint: endpoint("authorization_endpoint")
                .ok_or_else(|| unexpected("no authorization_endpoint"))?,
            token_endpoint: endpoint("token_endpoint").ok_or_else(|| unexpected("no token_endpoint"))?,
            registration_endpoint: endpoint("registration_endpoint"),
            iss_advertised: server["authorization_response_iss_parameter_supported"] == true,
        })
    }
}

impl Pending {
    pub(super) fn new() -> Self {
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

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known();
        f.debug_struct("SignIn")
            .field("client_id", &known.client_id)
            .field("has_access_token", &known.access_token.is_some())
            .field("has_refresh_token", &known.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

fn contains(list: &Value, wanted: &str) -> bool {
    list.as_array()
        .is_some_and(|list| list.iter().any(|item| item == wanted))
}

/// 43 characters of 256 random bits.
fn random_text() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("a host without randomness cannot run tests of this kind");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
