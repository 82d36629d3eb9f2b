//! Who a client is at the token and revocation endpoints (RFC 6749 section 2.3, RFC 7521 section 4.2).
//!
//! A client with a secret may send it in either way, whichever it registered: clients are not careful about this, and
//! the secret is as good in the body as in the header. A client with keys signs, and nothing else will do.
//!
//! Whatever is wrong with a client's proof, the answer is the same, and the same as for a client that there is not.

mod assertion;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

use super::{ServerState, client_lookup::LookupError, params::Params, response::OAuthError};
use crate::{
    ids::ClientId,
    records::{ClientAuth, ClientRecord},
    secret,
};

/// What a request brings to show whose it is.
struct ClientCredentials {
    client_id: ClientId,
    secret: Option<String>,
    assertion: Option<String>,
    /// In an `Authorization` header.
    basic: bool,
}

/// Why a proof is not accepted.
enum ClientAuthError {
    /// It proves nothing.
    Client,
    /// It could not be looked at.
    Error(OAuthError),
}

/// Finds the client and checks that it is the one.
pub(super) async fn authenticate(
    inner: &ServerState,
    headers: &HeaderMap,
    params: &Params,
) -> Result<ClientRecord, OAuthError> {
    let presented = presented(headers, params)?;
    let refused = || OAuthError::InvalidClient { basic: presented.basic };
    let client = match inner.client(&presented.client_id).await {
        Ok(Some(client)) => client,
        Ok(None) => return Err(refused()),
        Err(LookupError::Store(error)) => return Err(error.into()),
        Err(LookupError::Unreachable(_)) => return Err(OAuthError::Unreachable),
    };
    match &client.auth {
        // A public client has nothing to prove; what it sends in the place of a proof is not looked at.
        ClientAuth::None => return Ok(client),
        ClientAuth::Basic(hash) | ClientAuth::Post(hash) => {
            let secret = secret::hash(presented.secret.as_deref().unwrap_or_default());
            if !secret::same(&secret.0, &hash.0) {
                return Err(refused());
            }
            inner.rate_limits.client(&client.client_id, inner.clock.now())?;
        }
        ClientAuth::PrivateKeyJwt(source) => {
            let assertion = presented.assertion.as_deref().ok_or_else(refused)?;
            match assertion::check(inner, &client, source, assertion).await {
                Ok(()) => {}
                Err(ClientAuthError::Client) => return Err(refused()),
                Err(ClientAuthError::Error(error)) => return Err(error),
            }
        }
    }
    Ok(client)
}

/// What a request brings, in one way only (RFC 6749 section 2.3).
fn presented(headers: &HeaderMap, params: &Params) -> Result<ClientCredentials, OAuthError> {
    let client_id = params.value("client_id");
    let (secret, assertion) = (params.value("client_secret"), params.value("client_assertion"));
    let basic = basic(headers)?;
    if [basic.is_some(), secret.is_some(), assertion.is_some()]
        .into_iter()
        .filter(|way| *way)
        .count()
        > 1
    {
        return Err(OAuthError::InvalidRequest(
            "the client authenticates in more than one way",
        ));
    }
    if let Some((id, secret)) = basic {
        if client_id.is_some_and(|other| other != id) {
            return Err(OAuthError::InvalidRequest(
                "the client_id is not the one in Authorization",
            ));
        }
        return Ok(ClientCredentials {
            client_id: ClientId(id),
            secret: Some(secret),
            assertion: None,
            basic: true,
        });
    }
    if assertion.is_some() && params.value("client_assertion_type") != Some(assertion::TYPE) {
        return Err(OAuthError::InvalidRequest(
            "this client_assertion_type is not supported",
        ));
    }
    // RFC 7521 section 4.2: the assertion names the client, which the parameter may repeat.
    let client_id = match (client_id, assertion) {
        (Some(id), _) => id.to_owned(),
        (None, Some(assertion)) => assertion::subject(assertion).ok_or(OAuthError::InvalidClient { basic: false })?,
        (None, None) => return Err(OAuthError::InvalidRequest("client_id is missing")),
    };
    Ok(ClientCredentials {
        client_id: ClientId(client_id),
        secret: secret.map(str::to_owned),
        assertion: assertion.map(str::to_owned),
        basic: false,
    })
}

/// The credentials of HTTP Basic, each form-encoded (RFC 6749 section 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, OAuthError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let bad = || OAuthError::InvalidClient { basic: true };
    let value = value.to_str().map_err(|_| bad())?;
    let (scheme, credentials) = value.split_once(' ').ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let decoded = STANDARD.decode(credentials.trim()).map_err(|_| bad())?;
    let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
    let (id, secret) = decoded.split_once(':').ok_or_else(bad)?;
    Ok(Some((form_decoded(id), form_decoded(secret))))
}

fn form_decoded(text: &str) -> String {
    // Parsed as the name of a parameter without a value: an encoded text holds neither `&` nor `=`.
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
    fn both_halves_are_form_decoded() {
        let (id, secret) = basic(&headers("a%3Ab+c:x%26y=z&")).unwrap().unwrap();
        assert_eq!((id.as_str(), secret.as_str()), ("a:b c", "x&y=z&"));
    }

    #[test]
    fn what_is_not_basic_is_refused() {
        assert!(basic(&HeaderMap::new()).unwrap().is_none());
        for value in ["Bearer abc", "Basic", "Basic !!!", "Basic YWJj"] {
            let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            assert!(
                matches!(basic(&headers), Err(OAuthError::InvalidClient { basic: true })),
                "{value}"
            );
        }
    }
}
