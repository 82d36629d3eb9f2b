//! Authentication of clients at the token and revocation endpoints (RFC 6749 section 2.3, RFC 7521
//! section 4.2).
//!
//! A client may send its secret in the header or in the body, whichever it registered: clients are
//! not careful about it, and the secret is as good in both. A client with keys must sign. Every
//! failed authentication gets the same response, which is also that for an unknown client.

mod assertion;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

use super::{client_lookup, oauth_error::OAuthError, params::Params, state::ServerState};
use crate::{
    ids::ClientId,
    records::{ClientAuth, ClientRecord},
    secret,
};

/// The parameters that identify and authenticate a client.
pub(super) const CLIENT_ID: &str = "client_id";
pub(super) const SECRET: &str = "client_secret";
pub(super) const ASSERTION: &str = "client_assertion";
pub(super) const ASSERTION_TYPE: &str = "client_assertion_type";

/// The credentials of a request.
struct ClientCredentials {
    client_id: String,
    secret: Option<String>,
    assertion: Option<String>,
    /// They came in an `Authorization` header.
    basic: bool,
}

/// Finds the client of a request and checks its credentials.
pub(super) async fn authenticate(
    state: &ServerState,
    headers: &HeaderMap,
    params: &Params,
) -> Result<ClientRecord, OAuthError> {
    let credentials = ClientCredentials::from_request(headers, params)?;
    let basic = credentials.basic;
    let invalid = || OAuthError::InvalidClient { basic };
    let client = client_lookup::find(state, &ClientId(credentials.client_id)).await?;
    let client = client.ok_or_else(invalid)?;
    match &client.auth {
        // A public client has no credentials; those that it sends are ignored.
        ClientAuth::None => {}
        ClientAuth::Basic(hash) | ClientAuth::Post(hash) => {
            let secret = secret::hash(credentials.secret.as_deref().unwrap_or_default());
            if !secret::same(&secret.0, &hash.0) {
                return Err(invalid());
            }
            state.rate_limits.client_request(&client.client_id)?;
        }
        ClientAuth::PrivateKeyJwt(source) => {
            let assertion = credentials.assertion.as_deref().ok_or_else(invalid)?;
            assertion::verify(state, &client, source, assertion).await?;
        }
    }
    Ok(client)
}

impl ClientCredentials {
    /// Reads the credentials, which may come in one way only (RFC 6749 section 2.3).
    fn from_request(headers: &HeaderMap, params: &Params) -> Result<Self, OAuthError> {
        let malformed = |reason| Err(OAuthError::InvalidRequest(reason));
        let client_id = params.value(CLIENT_ID);
        let (secret, assertion) = (params.value(SECRET), params.value(ASSERTION));
        let in_header = basic_credentials(headers)?;
        let basic = in_header.is_some();
        let ways = [basic, secret.is_some(), assertion.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return malformed("the client authenticates in more than one way");
        }
        if let Some((id, secret)) = in_header {
            if client_id.is_some_and(|other| other != id) {
                return malformed("client_id differs from the one in Authorization");
            }
            return Ok(Self {
                client_id: id,
                secret: Some(secret),
                assertion: None,
                basic,
            });
        }
        if assertion.is_some() && params.value(ASSERTION_TYPE) != Some(assertion::TYPE) {
            return malformed("this client_assertion_type is not supported");
        }
        // RFC 7521 section 4.2: the assertion names the client, which the parameter may repeat.
        let client_id = match (client_id, assertion) {
            (Some(id), _) => id.to_owned(),
            (None, Some(assertion)) => assertion::subject(assertion).ok_or(OAuthError::InvalidClient { basic })?,
            (None, None) => return malformed("client_id is missing"),
        };
        Ok(Self {
            client_id,
            secret: secret.map(str::to_owned),
            assertion: assertion.map(str::to_owned),
            basic,
        })
    }
}

/// The credentials of HTTP Basic, each form-encoded (RFC 6749 section 2.3.1).
fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, OAuthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let malformed = || OAuthError::InvalidClient { basic: true };
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, credentials) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = STANDARD.decode(credentials.trim()).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (id, secret) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(Some((form_decoded(id), form_decoded(secret))))
}

fn form_decoded(text: &str) -> String {
    // Parsed as the name of a parameter without a value: an encoded text contains neither `&` nor
    // `=`.
    let unsplit = text.replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(unsplit.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(credentials: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(credentials));
        [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let (id, secret) = basic_credentials(&headers("a%3Ab+c:x%26y=z&")).unwrap().unwrap();
        assert_eq!((id.as_str(), secret.as_str()), ("a:b c", "x&y=z&"));
    }

    #[test]
    fn malformed_basic_credentials_are_refused() {
        assert!(basic_credentials(&HeaderMap::new()).unwrap().is_none());
        for value in ["Bearer abc", "Basic", "Basic !!!", "Basic YWJj"] {
            let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            assert!(
                matches!(
                    basic_credentials(&headers),
                    Err(OAuthError::InvalidClient { basic: true })
                ),
                "{value}"
            );
        }
    }
}
