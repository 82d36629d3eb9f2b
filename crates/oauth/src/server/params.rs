//! Parameters of a query or a form (RFC 6749 section 3.1): a parameter without a value counts as
//! absent, one that the endpoint does not know is ignored, and one that it knows must not be
//! repeated. Only `resource` may be (RFC 8707 section 2), and its reader decides.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Request, header};

/// The parameters of a request that its endpoint knows.
#[derive(Debug)]
pub(super) struct Params {
    /// The first value of each.
    values: HashMap<&'static str, String>,
    /// Those with more than one value.
    repeated: Vec<&'static str>,
}

/// The reason why parameters are refused, for the client's developer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParamsError(pub(super) &'static str);

/// The parameter that may be repeated.
pub(super) const RESOURCE: &str = "resource";

const REPEATED: ParamsError = ParamsError("a parameter is repeated");
const NOT_A_FORM: ParamsError = ParamsError("the body must be application/x-www-form-urlencoded");

impl Params {
    /// The parameters of a query among `known`.
    pub(super) fn from_query(request: &Request<Bytes>, known: &[&'static str]) -> Result<Self, ParamsError> {
        let params = Self::read_query(request, known);
        params.check_single()?;
        Ok(params)
    }

    /// The parameters of a form among `known`.
    pub(super) fn from_form(request: &Request<Bytes>, known: &[&'static str]) -> Result<Self, ParamsError> {
        let params = Self::read_form(request, known)?;
        params.check_single()?;
        Ok(params)
    }

    /// As [`Params::from_query`], for a caller that itself handles repeated parameters.
    pub(super) fn read_query(request: &Request<Bytes>, known: &[&'static str]) -> Self {
        Self::parse(request.uri().query().unwrap_or_default().as_bytes(), known)
    }

    /// As [`Params::from_form`], for a caller that itself handles repeated parameters.
    pub(super) fn read_form(request: &Request<Bytes>, known: &[&'static str]) -> Result<Self, ParamsError> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        if !content_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(NOT_A_FORM);
        }
        Ok(Self::parse(request.body(), known))
    }

    fn parse(bytes: &[u8], known: &[&'static str]) -> Self {
        let (mut values, mut repeated) = (HashMap::new(), Vec::new());
        for (name, value) in url::form_urlencoded::parse(bytes) {
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            if values.contains_key(name) {
                repeated.push(name);
            } else {
                values.insert(name, value.into_owned());
            }
        }
        Self { values, repeated }
    }

    /// The value of a parameter, unless it is absent or empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns whether a parameter has more than one value.
    pub(super) fn is_repeated(&self, name: &str) -> bool {
        self.repeated.contains(&name)
    }

    /// Refuses repeated parameters, except `resource`.
    pub(super) fn check_single(&self) -> Result<(), ParamsError> {
        if self.repeated.iter().any(|name| *name != RESOURCE) {
            return Err(REPEATED);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["a", "b", RESOURCE];

    #[test]
    fn a_repeated_parameter_is_refused_unless_it_is_unknown_or_a_resource() {
        let check = |query: &str| Params::parse(query.as_bytes(), &KNOWN).check_single();
        assert_eq!(check("a=1&b=2&a=1"), Err(REPEATED));
        assert_eq!(check("a=1&%61=1"), Err(REPEATED));
        assert_eq!(check("a=1&x=1&x=2"), Ok(()));
        assert_eq!(check("a=1&a=&a"), Ok(()), "without a value it is absent");
        let params = Params::parse(b"resource=1&resource=1", &KNOWN);
        assert!(params.check_single().is_ok() && params.is_repeated(RESOURCE));
    }

    #[test]
    fn an_empty_or_unknown_parameter_counts_as_absent() {
        let params = Params::parse(b"a=&b=x%20y+z&x=1", &KNOWN);
        assert_eq!(params.value("a"), None);
        assert_eq!(params.value("b"), Some("x y z"));
        assert_eq!(params.value("x"), None);
    }

    #[test]
    fn another_content_type_is_refused() {
        let form = |kind: &str| {
            let request = Request::post("/")
                .header(header::CONTENT_TYPE, kind)
                .body("a=1".into())
                .unwrap();
            Params::from_form(&request, &KNOWN).map(|params| params.value("a").map(str::to_owned))
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
