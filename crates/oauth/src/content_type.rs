//! The content type of a request or response.

use http::{HeaderMap, header};

/// The content type without its parameters, in lower case. `None` unless it is stated once.
pub(crate) fn of(headers: &HeaderMap) -> Option<String> {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let kind = value.to_str().ok()?.split(';').next()?;
    Some(kind.trim().to_ascii_lowercase())
}

/// `application/json`, or a more specific `application/*+json` (client ID metadata document draft
/// section 4.1).
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = of(headers).unwrap_or_default();
    match kind.strip_prefix("application/") {
        Some("json") => true,
        Some(subtype) => subtype.len() > "+json".len() && subtype.ends_with("+json"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_content_types_are_recognized() {
        let is = |kind: &str| is_json(&[(header::CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect());
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/jwk-set+json",
        ] {
            assert!(is(kind), "{kind}");
        }
        for kind in [
            "text/html",
            "text/json",
            "application/+json",
            "application/jsonp",
            "application/xml",
            "",
        ] {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
