//! The authorization response: the browser returns to the client, with `state` and `iss` (RFC 6749 section 4.1.2,
//! RFC 9207 section 2).

/// The address of a response to the client. The redirect URI itself stays as the client wrote it.
pub(super) fn location(issuer: &str, redirect_uri: &str, state: Option<&str>, params: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(params);
    query.extend_pairs(state.map(|state| ("state", state)));
    query.append_pair("iss", issuer);
    let separator = match redirect_uri.find('?') {
        None => "?",
        Some(at) if at + 1 == redirect_uri.len() || redirect_uri.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{redirect_uri}{separator}{}", query.finish())
}

/// The address of an error response to the client (RFC 6749 section 4.1.2.1).
pub(super) fn error_location(
    issuer: &str,
    redirect_uri: &str,
    state: Option<&str>,
    error: &str,
    description: &str,
) -> String {
    let params = [("error", error), ("error_description", description)];
    location(issuer, redirect_uri, state, &params)
}
