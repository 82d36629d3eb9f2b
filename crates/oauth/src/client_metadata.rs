//! Client metadata as JSON (RFC 7591 section 2), as registrations and metadata documents have it.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    fetch,
    jwt::KeySet,
    records::{ApplicationType, KeySource},
};

/// The members that this server reads. A member of another type than expected is an error, `null`
/// counts as absent, and other members (logos, contacts) are ignored, as RFC 7591 section 2 allows.
#[derive(Deserialize)]
pub(crate) struct ClientMetadata {
    pub(crate) redirect_uris: Option<Vec<String>>,
    pub(crate) client_name: Option<String>,
    pub(crate) token_endpoint_auth_method: Option<String>,
    application_type: Option<String>,
    pub(crate) jwks: Option<Value>,
    jwks_uri: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
}

impl ClientMetadata {
    /// Reads the members of a JSON object.
    pub(crate) fn from_object(object: Map<String, Value>) -> Option<Self> {
        serde_json::from_value(Value::Object(object)).ok()
    }

    /// Refuses a client that cannot use the authorization code flow. One that leaves the lists out
    /// or asks for more gets what there is (RFC 7591 section 2: the server may replace values).
    ///
    /// # Errors
    ///
    /// The reason, for the client's developer.
    pub(crate) fn check_flow(&self) -> Result<(), &'static str> {
        let lacks = |list: &Option<Vec<String>>, wanted: &str| {
            list.as_ref()
                .is_some_and(|list| !list.is_empty() && !list.iter().any(|name| name == wanted))
        };
        if lacks(&self.grant_types, "authorization_code") {
            return Err("grant_types must include authorization_code");
        }
        if lacks(&self.response_types, "code") {
            return Err("response_types must include code");
        }
        Ok(())
    }

    /// The kind of application. A name that is not defined is ignored (RFC 7591 section 2).
    pub(crate) fn application_type(&self) -> Option<ApplicationType> {
        self.application_type.as_deref().and_then(ApplicationType::from_name)
    }

    /// The keys of the client: in its metadata or at a URL, never both (RFC 7591 section 2).
    ///
    /// # Errors
    ///
    /// The reason, for the client's developer.
    pub(crate) fn into_key_source(self) -> Result<KeySource, &'static str> {
        match (self.jwks, self.jwks_uri) {
            (Some(jwks), None) => {
                let json = jwks.to_string();
                KeySet::parse(json.as_bytes())?;
                Ok(KeySource::Inline(json))
            }
            (None, Some(uri)) => {
                fetch::check_url(&uri)?;
                Ok(KeySource::Uri(uri))
            }
            (Some(_), Some(_)) => Err("jwks and jwks_uri exclude each other"),
            (None, None) => Err("private_key_jwt needs jwks or jwks_uri"),
        }
    }
}
