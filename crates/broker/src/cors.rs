//! Cross-origin access of browsers to `/mcp` (Fetch standard, "CORS protocol").
//!
//! The list of allowed origins decides, as for any other request: a request with another origin is
//! rejected before it reaches this module, and learns nothing. An allowed origin may send a
//! preflight without a bearer, since browsers never attach one; the response lists methods and
//! headers and reveals nothing of any session. All responses, errors included, are readable by that
//! one origin. Cookies are never allowed: the page's own script sets the bearer in a header.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{ports::ResponseBody, response};

/// The methods of `/mcp`.
pub(crate) const ALLOWED_METHODS: &str = "GET, POST, DELETE";
/// Headers of clients beyond those that browsers always allow. Other `mcp-` headers are allowed on
/// request: in MCP 2026-07-28 each tool can name headers for its arguments (`Mcp-Param-*`).
const ALLOWED_HEADERS: &str = "authorization, content-type, accept, last-event-id, mcp-protocol-version, \
                               mcp-session-id, mcp-method, mcp-name";
/// Response headers that a script may read.
const EXPOSED_HEADERS: &str = "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after";
/// Lifetime of a preflight response in the browser's cache, in seconds.
const MAX_AGE: &str = "7200";
/// Maximum number of further `mcp-` headers.
const MAX_EXTRA_HEADERS: usize = 32;
/// Maximum length of the name of such a header, in bytes.
const MAX_EXTRA_HEADER_NAME: usize = 128;

/// The response to a preflight, if the request is one.
pub(crate) fn preflight(parts: &Parts) -> Option<Response<ResponseBody>> {
    let headers = &parts.headers;
    let is_preflight = parts.method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight {
        return None;
    }
    let mut response = response::empty(StatusCode::NO_CONTENT);
    let allow = response.headers_mut();
    allow.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(ALLOWED_METHODS),
    );
    allow.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(headers));
    allow.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    Some(response)
}

/// Lets pages of `origin`, which has been checked, read a response.
pub(crate) fn allow_origin(response: &mut Response<ResponseBody>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(EXPOSED_HEADERS),
    );
    // For caches: the response depends on the origin.
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let requested = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let extra = requested
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // Any token of RFC 9110 section 5.6.2: a tool may name its header so.
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| name.as_str().starts_with("mcp-") && name.as_str().len() <= MAX_EXTRA_HEADER_NAME)
        .filter(|name| !ALLOWED_HEADERS.split(", ").any(|always| always == name.as_str()))
        .take(MAX_EXTRA_HEADERS);
    let mut allowed = ALLOWED_HEADERS.to_owned();
    for name in extra {
        allowed.push_str(", ");
        allowed.push_str(name.as_str());
    }
    HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static(ALLOWED_HEADERS))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn preflight_of(method: Method, headers: &[(&str, &str)]) -> Option<Response<ResponseBody>> {
        let mut builder = Request::builder().method(method);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        preflight(&builder.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_a_complete_preflight_request_is_a_preflight() {
        let request = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
        ];
        assert!(preflight_of(Method::OPTIONS, &request).is_some());
        assert!(preflight_of(Method::POST, &request).is_none());
        assert!(preflight_of(Method::OPTIONS, &request[..1]).is_none());
        assert!(preflight_of(Method::OPTIONS, &request[1..]).is_none());
    }

    #[test]
    fn requested_mcp_headers_are_allowed_and_no_others() {
        let allowed = |requested: &str| {
            let request = [
                ("origin", "https://a.example"),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", requested),
            ];
            let response = preflight_of(Method::OPTIONS, &request).unwrap();
            response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(allowed("authorization"), ALLOWED_HEADERS);
        assert_eq!(allowed("x-evil, cookie, mcp-e vil, mcp-\"a, xmcp-a"), ALLOWED_HEADERS);
        assert_eq!(allowed("Mcp-Method, Mcp-Name, MCP-Protocol-Version"), ALLOWED_HEADERS);
        // The names of tools' headers are tokens (MCP 2026-07-28, transports, `x-mcp-header`).
        assert_eq!(
            allowed("Mcp-Method, Mcp-Param-Region, mcp-param-user_id,mcp-param-a.b~c!"),
            format!("{ALLOWED_HEADERS}, mcp-param-region, mcp-param-user_id, mcp-param-a.b~c!")
        );
        assert_eq!(allowed(&format!("mcp-param-{}", "a".repeat(119))), ALLOWED_HEADERS);
        assert_eq!(
            allowed(&"mcp-a,".repeat(1000)).matches("mcp-a").count(),
            MAX_EXTRA_HEADERS
        );
    }
}
