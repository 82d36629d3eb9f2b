//! What a client asks for when it registers or changes its registration, checked (RFC 7591 sections 2 and 3.2.2).

use serde::Deserialize;
use serde_json::Value;

use crate::{
    cimd,
    client_name::clean_name,
    config::{Registration, Settings},
    records::KeySource,
    redirect_uri,
    server::response::OAuthError,
};

/// Metadata that this server can work with.
#[derive(Debug)]
pub(super) struct ClientMetadata {
    pub(super) name: Option<String>,
    pub(super) redirect_uris: Vec<String>,
    pub(super) method: AuthMethod,
}

/// How the client wants to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthMethod {
    None,
    Basic,
    Post,
    PrivateKeyJwt(KeySource),
}

/// The longest request, in bytes.
const MAX_BODY: usize = 32 * 1024;
/// The longest key set of a client, in bytes.
const MAX_KEYS: usize = 8 * 1024;
/// How many redirect URIs a client may have.
const MAX_REDIRECT_URIS: usize = 10;

/// The body as it is sent; `null` is as good as nothing. Members of another type than expected are an error, unknown ones
/// are ignored.
#[derive(Deserialize)]
struct Body {
    redirect_uris: Option<Vec<String>>,
    client_name: Option<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
}

/// Reads the JSON object of a request.
pub(super) fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, OAuthError> {
    if body.len() > MAX_BODY {
        return Err(OAuthError::InvalidClientMetadata("the metadata is too long"));
    }
    serde_json::from_slice(body).map_err(|_| not_metadata())
}

impl ClientMetadata {
    /// Checks metadata.
    pub(super) fn of(object: serde_json::Map<String, Value>, settings: &Settings) -> Result<Self, OAuthError> {
        let body: Body = serde_json::from_value(Value::Object(object)).map_err(|_| not_metadata())?;
        let redirect_uris = body.redirect_uris.unwrap_or_default();
        check_redirects(&redirect_uris, settings)?;
        // A client that leaves the lists out, or asks for more than there is, gets what there is (RFC 7591 section 2: the
        // server may replace values). One that cannot do with that is told.
        let without = |types: Option<Vec<String>>, wanted: &str| {
            types.is_some_and(|types| !types.is_empty() && !types.iter().any(|name| name == wanted))
        };
        if without(body.grant_types, "authorization_code") {
            return Err(OAuthError::InvalidClientMetadata(
                "grant_types must include authorization_code",
            ));
        }
        if without(body.response_types, "code") {
            return Err(OAuthError::InvalidClientMetadata("response_types must include code"));
        }
        // A client that does not say gets a secret, which is the default of RFC 7591 section 2.
        let method = match body.token_endpoint_auth_method.as_deref() {
            None | Some("client_secret_basic") => AuthMethod::Basic,
            Some("client_secret_post") => AuthMethod::Post,
            Some("none") => AuthMethod::None,
            Some("private_key_jwt") => {
                if body.jwks.as_ref().is_some_and(|jwks| jwks.to_string().len() > MAX_KEYS) {
                    return Err(OAuthError::InvalidClientMetadata("the JWK Set is too long"));
                }
                let source = cimd::key_source(body.jwks, body.jwks_uri);
                AuthMethod::PrivateKeyJwt(source.map_err(OAuthError::InvalidClientMetadata)?)
            }
            Some(_) => {
                return Err(OAuthError::InvalidClientMetadata(
                    "this token_endpoint_auth_method is not supported",
                ));
            }
        };
        Ok(Self {
            name: body.client_name.as_deref().and_then(clean_name),
            redirect_uris,
            method,
        })
    }
}

fn check_redirects(redirect_uris: &[String], settings: &Settings) -> Result<(), OAuthError> {
    if redirect_uris.is_empty() {
        return Err(OAuthError::InvalidRedirectUri("redirect_uris is missing"));
    }
    if redirect_uris.len() > MAX_REDIRECT_URIS {
        return Err(OAuthError::InvalidRedirectUri(
            "a client may have ten redirect URIs at most",
        ));
    }
    let listed = settings.registration == Registration::AllowList;
    for uri in redirect_uris {
        redirect_uri::check(uri).map_err(OAuthError::InvalidRedirectUri)?;
        if listed && !settings.allow_list.allows_redirect(uri) {
            return Err(OAuthError::InvalidRedirectUri(
                "this redirect URI is not on the allow-list of this server",
            ));
        }
    }
    Ok(())
}

fn not_metadata() -> OAuthError {
    OAuthError::InvalidClientMetadata("the body must be a JSON object of client metadata")
}
