//! The authorization response: the browser returns to the client, with `state` and `iss` (RFC 6749
//! section 4.1.2, RFC 9207 section 2).

use crate::records::ClientRequest;

/// The address of a response to the client. The redirect URI itself stays as the client wrote it.
pub(super) fn location(issuer: &str, request: &ClientRequest, params: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(params);
    query.extend_pairs(request.client_state.as_ref().map(|state| ("state", state)));
    query.append_pair("iss", issuer);
    let uri = &request.redirect_uri;
    let separator = match uri.find('?') {
        None => "?",
        Some(at) if at + 1 == uri.len() || uri.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{uri}{separator}{}", query.finish())
}

/// The address of an error response to the client (RFC 6749 section 4.1.2.1).
pub(super) fn error_location(issuer: &str, request: &ClientRequest, (error, description): (&str, &str)) -> String {
    location(issuer, request, &[("error", error), ("error_description", description)])
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::ids::ClientId;

    /// With a path and a port, and a character that the query must encode.
    const ISSUER: &str = "https://broker.example:8443/tools+more";

    fn request(redirect_uri: &str, client_state: Option<&str>) -> ClientRequest {
        ClientRequest {
            client_id: ClientId("c".to_owned()),
            redirect_uri: redirect_uri.to_owned(),
            client_state: client_state.map(str::to_owned),
            code_challenge: String::new(),
            scope: String::new(),
            approved_by: None,
        }
    }

    #[test]
    fn every_response_names_the_issuer_once_and_unchanged() {
        for uri in [
            "https://a.example/cb",
            "https://a.example/cb?x=y",
            "https://a.example/cb?",
            "app:/cb",
        ] {
            for state in [None, Some("a&iss=https://evil.example")] {
                let request = request(uri, state);
                for location in [
                    location(ISSUER, &request, &[("code", "c")]),
                    error_location(ISSUER, &request, ("access_denied", "the user declined")),
                ] {
                    assert!(location.starts_with(uri), "{location}");
                    let url = Url::parse(&location).unwrap();
                    let values = |name: &str| -> Vec<String> {
                        let pairs = url.query_pairs().filter(|(key, _)| key == name);
                        pairs.map(|(_, value)| value.into_owned()).collect()
                    };
                    // RFC 9207 section 2.4: the client compares the decoded value as a string.
                    assert_eq!(values("iss"), [ISSUER], "{location}");
                    assert_eq!(values("state"), state.into_iter().collect::<Vec<_>>(), "{location}");
                }
            }
        }
    }
}
