//! What browsers ask and are told about `/mcp` across origins (Fetch standard, "CORS protocol").
//!
//! The list of origins decides, as for any other request: an origin that is not on it is refused before this module is
//! reached, and learns nothing. One that is on it may ask what it may send, without a bearer, since a browser never puts
//! one into that question; the answer names methods and headers and says nothing of any session. Answers themselves, errors
//! included, are made readable for that one origin. Cookies are never asked for: the bearer is in a header that the
//! page's own script sets.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{ports::ResponseBody, response};

/// The methods of `/mcp`.
const ALLOWED_METHODS: &str = "GET, POST, DELETE";
/// What clients send besides what browsers let everyone send. Further `mcp-` headers are allowed as they are asked for:
/// MCP 2026-07-28 lets tools name some of their own.
const ALLOWED_HEADERS: &str =
    "authorization, content-type, accept, last-event-id, mcp-protocol-version, mcp-session-id";
/// What a script may read of an answer.
const EXPOSED_HEADERS: &str = "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after";
/// How long a browser may remember the answer, in seconds.
const MAX_AGE: &str = "7200";
/// How many further headers may be asked for.
const MAX_EXTRA_HEADERS: usize = 32;

/// The answer to a browser's question before the request itself, if the request is one.
pub(crate) fn preflight(parts: &Parts) -> Option<Response<ResponseBody>> {
    let headers = &parts.headers;
    let asks = parts.method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks {
        return None;
    }
    let mut response = response::empty(StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(ALLOWED_METHODS),
    );
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(headers));
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    Some(response)
}

/// Lets the page of an origin that has been checked read an answer.
pub(crate) fn open(response: &mut Response<ResponseBody>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(EXPOSED_HEADERS),
    );
    // The answer differs from origin to origin, for whoever keeps answers.
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let asked = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let further = asked
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| {
            name.starts_with("mcp-") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && name.len() <= 64
        })
        .take(MAX_EXTRA_HEADERS);
    let mut allowed = ALLOWED_HEADERS.to_owned();
    for name in further {
        allowed.push_str(", ");
        allowed.push_str(&name);
    }
    HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static(ALLOWED_HEADERS))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: Method, headers: &[(&str, &str)]) -> Option<Response<ResponseBody>> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        preflight(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_the_question_of_a_browser_is_a_preflight() {
        let question = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
        ];
        assert!(asked(Method::OPTIONS, &question).is_some());
        assert!(asked(Method::POST, &question).is_none());
        assert!(asked(Method::OPTIONS, &question[..1]).is_none());
        assert!(asked(Method::OPTIONS, &question[1..]).is_none());
    }

    #[test]
    fn headers_of_mcp_are_allowed_and_no_others() {
        let allowed = |asked_for: &str| {
            let question = [
                ("origin", "https://a.example"),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", asked_for),
            ];
            let response = asked(Method::OPTIONS, &question).unwrap();
            response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(allowed("authorization"), ALLOWED_HEADERS);
        assert_eq!(allowed("x-evil, cookie, mcp-e!vil, xmcp-a"), ALLOWED_HEADERS);
        assert_eq!(
            allowed("Mcp-Method, mcp-param-region"),
            format!("{ALLOWED_HEADERS}, mcp-method, mcp-param-region")
        );
        assert_eq!(
            allowed(&"mcp-a,".repeat(1000)).matches("mcp-a").count(),
            MAX_EXTRA_HEADERS
        );
    }
}
