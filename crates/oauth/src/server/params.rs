//! Parameters of a query or a form.
//!
//! A parameter must not occur twice, and one without a value is one that is not there (RFC 6749 section 3.1).

use std::collections::HashMap;

use http::{Request, header};

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Params(HashMap<String, String>);

/// Why there are no parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParamsError {
    /// One occurs twice.
    Repeated,
    /// The body is not a form.
    NotAForm,
}

impl Params {
    /// The parameters of a query.
    pub(super) fn of_query<B>(request: &Request<B>) -> Result<Self, ParamsError> {
        Self::parse(request.uri().query().unwrap_or_default().as_bytes())
    }

    /// The parameters of a form.
    pub(super) fn of_form(request: &Request<bytes::Bytes>) -> Result<Self, ParamsError> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(ParamsError::NotAForm);
        }
        Self::parse(request.body())
    }

    fn parse(bytes: &[u8]) -> Result<Self, ParamsError> {
        let mut params = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            if params.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(ParamsError::Repeated);
            }
        }
        Ok(Self(params))
    }

    /// The value of a parameter, if it has one.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl ParamsError {
    /// For the client's developer.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Repeated => "a parameter occurs twice",
            Self::NotAForm => "the body must be application/x-www-form-urlencoded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_occurs_twice_is_refused() {
        assert_eq!(Params::parse(b"a=1&b=2&a=1").unwrap_err(), ParamsError::Repeated);
    }

    #[test]
    fn an_empty_parameter_is_not_there() {
        let params = Params::parse(b"a=&b=x%20y+z&c").unwrap();
        assert_eq!(params.value("a"), None);
        assert_eq!(params.value("b"), Some("x y z"));
        assert_eq!(params.value("c"), None);
    }

    #[test]
    fn only_a_form_is_read_as_one() {
        let form = |kind: &str| {
            let request = Request::post("/")
                .header(header::CONTENT_TYPE, kind)
                .body("a=1".into())
                .unwrap();
            Params::of_form(&request).map(|params| params.value("a").map(str::to_owned))
        };
        assert_eq!(
            form("application/x-www-form-urlencoded; charset=UTF-8")
                .unwrap()
                .as_deref(),
            Some("1")
        );
        assert_eq!(form("application/json").unwrap_err(), ParamsError::NotAForm);
    }
}
