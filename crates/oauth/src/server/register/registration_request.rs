//! The validated metadata of a client that registers or changes its registration (RFC 7591 sections
//! 2 and 3.2.2).

use bytes::Bytes;
use http::Request;
use serde_json::{Map, Value};

use crate::{
    client_metadata::ClientMetadata,
    client_name::clean_name,
    config::{Registration, Settings},
    content_type,
    records::{ApplicationType, KeySource},
    redirect_uri,
    server::{oauth_error::OAuthError, state::ServerState},
};

/// A registration that this server can accept.
#[derive(Debug)]
pub(super) struct RegistrationRequest {
    pub(super) name: Option<String>,
    pub(super) redirect_uris: Vec<String>,
    pub(super) application_type: Option<ApplicationType>,
    pub(super) auth_method: AuthMethod,
}

/// The method of authentication that the client asks for.
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
const MAX_KEY_SET: usize = 8 * 1024;
/// The largest number of redirect URIs of a client.
const MAX_REDIRECT_URIS: usize = 10;

const NOT_METADATA: OAuthError = OAuthError::InvalidClientMetadata("the body must be a JSON object of client metadata");

/// Reads the JSON object of a request (RFC 7591 section 3.1, RFC 7592 section 2.2).
pub(super) fn parse_object(request: &Request<Bytes>) -> Result<Map<String, Value>, OAuthError> {
    if content_type::of(request.headers()).as_deref() != Some("application/json") {
        return Err(OAuthError::NotJson);
    }
    let body = request.body();
    if body.len() > MAX_BODY {
        return Err(OAuthError::InvalidClientMetadata("the metadata is too long"));
    }
    serde_json::from_slice(body).map_err(|_| NOT_METADATA)
}

impl RegistrationRequest {
    /// Validates metadata.
    pub(super) fn validate(object: Map<String, Value>, state: &ServerState) -> Result<Self, OAuthError> {
        let metadata = ClientMetadata::from_object(object).ok_or(NOT_METADATA)?;
        let redirect_uris = metadata.redirect_uris.clone().unwrap_or_default();
        let redirect_uris =
            allowed_redirect_uris(redirect_uris, &state.settings).map_err(OAuthError::InvalidRedirectUri)?;
        metadata.check_flow().map_err(OAuthError::InvalidClientMetadata)?;
        let name = metadata.client_name.as_deref().and_then(clean_name);
        let application_type = metadata.application_type();
        let auth_method = AuthMethod::of(metadata).map_err(OAuthError::InvalidClientMetadata)?;
        if matches!(auth_method, AuthMethod::PrivateKeyJwt(KeySource::Uri(_))) && state.documents.is_none() {
            return Err(OAuthError::InvalidClientMetadata("jwks_uri is not supported, jwks is"));
        }
        Ok(Self {
            name,
            redirect_uris,
            application_type,
            auth_method,
        })
    }
}

impl AuthMethod {
    fn of(metadata: ClientMetadata) -> Result<Self, &'static str> {
        match metadata.token_endpoint_auth_method.as_deref() {
            // The default of RFC 7591 section 2.
            None | Some("client_secret_basic") => Ok(Self::Basic),
            Some("client_secret_post") => Ok(Self::Post),
            Some("none") => Ok(Self::None),
            Some("private_key_jwt") => {
                let key_set = metadata.jwks.as_ref();
                if key_set.is_some_and(|jwks| jwks.to_string().len() > MAX_KEY_SET) {
                    return Err("the JWK Set is too long");
                }
                metadata.into_key_source().map(Self::PrivateKeyJwt)
            }
            Some(_) => Err("this token_endpoint_auth_method is not supported"),
        }
    }
}

fn allowed_redirect_uris(redirect_uris: Vec<String>, settings: &Settings) -> Result<Vec<String>, &'static str> {
    if redirect_uris.len() > MAX_REDIRECT_URIS {
        return Err("a client may have ten redirect URIs at most");
    }
    let is_restricted = settings.config.registration == Registration::AllowList;
    redirect_uri::allowed(redirect_uris, |uri| {
        redirect_uri::check(uri)?;
        if is_restricted && !settings.allow_list.allows_redirect(uri) {
            return Err("this redirect URI is not on the allow-list of this server");
        }
        if settings.block_list.blocks_uri(uri) {
            return Err("the operator of this server has blocked the host of this redirect URI");
        }
        Ok(())
    })
}
