//! Parameters, cookies and credentials of requests; JSON, pages and redirects of responses.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    response::{Html, IntoResponse, Response},
};
use base64::prelude::{BASE64_STANDARD, Engine};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
};
use serde_json::{Map, Value};
use url::form_urlencoded;

/// The parameters of a GET's query, of a form, or of a JSON object. A missing one is the empty
/// string, as in Forgejo.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// The value of a parameter, empty if it is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    fn encoded(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        if request.method() == Method::GET {
            return Ok(Self::encoded(request.uri().query().unwrap_or_default().as_bytes()));
        }
        let is_json = header(request.headers(), &CONTENT_TYPE).starts_with("application/json");
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(IntoResponse::into_response)?;
        if !is_json {
            return Ok(Self::encoded(&body));
        }
        let fields: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
        let texts = fields.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        Ok(Self(
            texts.map(|(name, value)| (name.clone(), value.to_owned())).collect(),
        ))
    }
}

pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split("; "));
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

pub(super) fn authorization(headers: &HeaderMap) -> Option<(&str, &str)> {
    header(headers, &AUTHORIZATION).split_once(' ')
}

/// HTTP Basic credentials (RFC 7617): `None` if there are none, `Some(None)` if they cannot be
/// read.
pub(super) fn basic(headers: &HeaderMap) -> Option<Option<(String, String)>> {
    let (scheme, encoded) = authorization(headers)?;
    scheme.eq_ignore_ascii_case("basic").then(|| {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        let (name, secret) = decoded.split_once(':')?;
        Some((name.to_owned(), secret.to_owned()))
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// JSON with the headers of Forgejo, which the token endpoint sends too, against RFC 6749 section
/// 5.1.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json;charset=utf-8"),
        (CACHE_CONTROL, "max-age=0, private, must-revalidate"),
    ];
    (status, headers, body.to_string()).into_response()
}

pub(super) fn html(status: StatusCode, body: String) -> Response {
    (status, Html(body)).into_response()
}

pub(super) fn text(status: StatusCode, body: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain;charset=utf-8")], body).into_response()
}

pub(super) fn see_other(location: &str) -> Response {
    with(StatusCode::SEE_OTHER.into_response(), LOCATION, location)
}

pub(super) fn unauthorized(scheme: &str) -> Response {
    let response = text(StatusCode::UNAUTHORIZED, "no valid authorization");
    with(response, WWW_AUTHENTICATE, &format!("{scheme} realm=\"\""))
}

pub(super) fn with_cookie(response: Response, name: &str, value: &str) -> Response {
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
    with(response, SET_COOKIE, &cookie)
}

pub(super) fn without_cookie(response: Response, name: &str) -> Response {
    let cookie = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    with(response, SET_COOKIE, &cookie)
}

fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    // A value that cannot be a header (a redirect target with control characters) makes a bad
    // request.
    let Ok(value) = HeaderValue::from_str(value) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    response.headers_mut().append(name, value);
    response
}
