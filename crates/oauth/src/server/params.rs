//! Parameters of a query or a form. A parameter must not be repeated, and one without a value
//! counts as absent (RFC 6749 section 3.1).

use std::collections::HashMap;

use bytes::Bytes;
use http::{Request, header};

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Params(HashMap<String, String>);

/// The reason why parameters are refused, for the client's developer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParamsError(pub(super) &'static str);

const REPEATED: ParamsError = ParamsError("a parameter is repeated");
const NOT_A_FORM: ParamsError = ParamsError("the body must be application/x-www-form-urlencoded");

impl Params {
    pub(super) fn from_query(request: &Request<Bytes>) -> Result<Self, ParamsError> {
        Self::parse(request.uri().query().unwrap_or_default().as_bytes())
    }

    pub(super) fn from_form(request: &Request<Bytes>) -> Result<Self, ParamsError> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        if !content_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(NOT_A_FORM);
        }
        Self::parse(request.body())
    }

    fn parse(bytes: &[u8]) -> Result<Self, ParamsError> {
        let mut params = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            if params.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(REPEATED);
            }
        }
        Ok(Self(params))
    }

    /// The value of a parameter, unless it is absent or empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_parameter_is_refused() {
        assert_eq!(Params::parse(b"a=1&b=2&a=1").unwrap_err(), REPEATED);
    }

    #[test]
    fn an_empty_parameter_counts_as_absent() {
        let params = Params::parse(b"a=&b=x%20y+z&c").unwrap();
        assert_eq!(params.value("a"), None);
        assert_eq!(params.value("b"), Some("x y z"));
        assert_eq!(params.value("c"), None);
    }

    #[test]
    fn another_content_type_is_refused() {
        let form = |kind: &str| {
            let request = Request::post("/")
                .header(header::CONTENT_TYPE, kind)
                .body("a=1".into())
                .unwrap();
            Params::from_form(&request).map(|params| params.value("a").map(str::to_owned))
        };
        assert_eq!(
            form("application/x-www-form-urlencoded; charset=UTF-8")
                .unwrap()
                .as_deref(),
            Some("1")
        );
        assert_eq!(form("application/json").unwrap_err(), NOT_A_FORM);
    }
}
