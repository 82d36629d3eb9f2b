//! Requests and responses as the endpoints see them: parameters, cookies and credentials in, JSON and pages out.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use serde_json::Value;
use url::form_urlencoded;

/// One response.
pub(super) type Reply = Response<Full<Bytes>>;

/// One request.
#[derive(Debug)]
pub(super) struct Call(Request<Bytes>);

/// The parameters of a query, a form or a JSON object. One that is missing is the empty string, as in Forgejo.
#[derive(Debug, Default, Clone)]
pub(super) struct Params(Vec<(String, String)>);

impl Call {
    pub(super) fn new(request: Request<Bytes>) -> Self {
        Self(request)
    }

    pub(super) fn method(&self) -> &Method {
        self.0.method()
    }

    pub(super) fn path(&self) -> &str {
        self.0.uri().path()
    }

    /// Path and query, as the request line had them.
    pub(super) fn target(&self) -> &str {
        self.0.uri().path_and_query().map_or("/", |target| target.as_str())
    }

    pub(super) fn query(&self) -> Params {
        Params::encoded(self.0.uri().query().unwrap_or("").as_bytes())
    }

    /// The body, read as JSON if it says it is JSON and as a form otherwise.
    pub(super) fn form(&self) -> Params {
        if self.header(CONTENT_TYPE).starts_with("application/json") {
            Params::json(self.0.body())
        } else {
            Params::encoded(self.0.body())
        }
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.0.body()).ok()
    }

    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        self.0.headers().get_all(COOKIE).iter().find_map(|line| {
            line.to_str()
                .ok()?
                .split("; ")
                .find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
        })
    }

    /// Scheme and rest of the `Authorization` header.
    pub(super) fn authorization(&self) -> Option<(&str, &str)> {
        self.header(AUTHORIZATION).split_once(' ')
    }

    /// HTTP Basic credentials (RFC 7617): `None` if there are none, `Some(None)` if they cannot be read.
    pub(super) fn basic(&self) -> Option<Option<(String, String)>> {
        let (scheme, encoded) = self.authorization()?;
        scheme.eq_ignore_ascii_case("basic").then(|| {
            let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
            let (name, secret) = decoded.split_once(':')?;
            Some((name.to_owned(), secret.to_owned()))
        })
    }

    fn header(&self, name: HeaderName) -> &str {
        self.0
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

impl Params {
    /// The value of a parameter, empty if it is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    }

    fn encoded(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    fn json(text: &[u8]) -> Self {
        let fields: serde_json::Map<String, Value> = serde_json::from_slice(text).unwrap_or_default();
        let texts = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        Self(texts.collect())
    }
}

pub(super) fn json(status: StatusCode, body: &Value) -> Reply {
    let mut reply = reply(status, "application/json;charset=utf-8", body.to_string());
    // What Forgejo sends, at the token endpoint too, in spite of RFC 6749 section 5.1.
    reply.headers_mut().insert(
        CACHE_CONTROL,
        HeaderValue::from_static("max-age=0, private, must-revalidate"),
    );
    reply
}

pub(super) fn html(status: StatusCode, body: String) -> Reply {
    reply(status, "text/html; charset=utf-8", body)
}

pub(super) fn text(status: StatusCode, body: &str) -> Reply {
    reply(status, "text/plain;charset=utf-8", body.to_owned())
}

pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

pub(super) fn see_other(location: &str) -> Reply {
    with(empty(StatusCode::SEE_OTHER), LOCATION, location)
}

/// 401 that asks for a scheme.
pub(super) fn unauthorized(scheme: &str) -> Reply {
    let reply = text(StatusCode::UNAUTHORIZED, "no valid authorization");
    with(reply, WWW_AUTHENTICATE, &format!("{scheme} realm=\"\""))
}

pub(super) fn with_cookie(reply: Reply, name: &str, value: &str) -> Reply {
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
    with(reply, SET_COOKIE, &cookie)
}

pub(super) fn without_cookie(reply: Reply, name: &str) -> Reply {
    let cookie = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    with(reply, SET_COOKIE, &cookie)
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    // A value that cannot be a header (a redirect target with raw control characters) is a broken request.
    match HeaderValue::from_str(value) {
        Ok(value) => {
            reply.headers_mut().append(name, value);
            reply
        }
        Err(_) => empty(StatusCode::BAD_REQUEST),
    }
}
