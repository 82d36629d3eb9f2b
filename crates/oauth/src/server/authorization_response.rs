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
