//! Who a client is at the token and revocation endpoints (RFC 6749 section 2.3).
//!
//! A client with a secret may send it in either way, whichever it registered: clients are not careful about this, and
//! the secret is as good in the body as in the header.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

use super::{Inner, params::Params, respond::OAuthError};
use crate::{
    records::{ClientAuth, ClientRecord},
    secret,
};

/// Finds the client and checks that it is the one.
pub(super) async fn authenticate(
    inner: &Inner,
    headers: &HeaderMap,
    params: &Params,
) -> Result<ClientRecord, OAuthError> {
    let in_header = basic(headers)?;
    let is_basic = in_header.is_some();
    let in_body = (params.value("client_id"), params.value("client_secret"));
    let (client_id, presented) = match (in_header, in_body) {
        // RFC 6749 section 2.3: one way in each request.
        (Some(_), (_, Some(_))) => {
            return Err(OAuthError::InvalidRequest(
                "the client authenticates in more than one way",
            ));
        }
        (Some((id, _)), (Some(other), None)) if id != other => {
            return Err(OAuthError::InvalidRequest(
                "the client_id is not the one in Authorization",
            ));
        }
        (Some((id, secret)), _) => (id, Some(secret)),
        (None, (Some(id), secret)) => (id.to_owned(), secret.map(str::to_owned)),
        (None, (None, _)) => return Err(OAuthError::InvalidRequest("client_id is missing")),
    };
    let refused = OAuthError::InvalidClient { basic: is_basic };
    let Some(client) = inner.client(&client_id).await? else {
        return Err(refused);
    };
    match client.auth {
        // A public client has nothing to prove; what it sends in the place of a secret is not looked at.
        ClientAuth::None => Ok(client),
        ClientAuth::Basic(hash) | ClientAuth::Post(hash) => {
            let presented = secret::hash(&presented.unwrap_or_default());
            if secret::same(&presented.0, &hash.0) {
                Ok(client)
            } else {
                Err(refused)
            }
        }
    }
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
