//! The `form-action` directive of a content security policy (CSP level 3, section 6.4.1).
//!
//! Chromium applies it to the form's target and to every redirect after the submission, Firefox to
//! the target alone. This browser follows Chromium, the stricter one. Left out: every other
//! directive, and paths and wildcards in host names.

use http::header::CONTENT_SECURITY_POLICY;
use url::Url;

use super::{BrowserError, Page};

#[derive(Debug, Default)]
pub(super) struct FormAction {
    page: Option<Url>,
    /// One list of sources for each policy with the directive; all of them must match.
    lists: Vec<Vec<String>>,
}

impl FormAction {
    pub(super) fn of(page: &Page) -> Self {
        let headers = page.headers.get_all(CONTENT_SECURITY_POLICY).iter();
        let policies = headers
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(','));
        Self {
            page: Some(page.url.clone()),
            lists: policies.filter_map(form_action).collect(),
        }
    }

    pub(super) fn check(&self, target: &Url) -> Result<(), BrowserError> {
        let allows = |list: &Vec<String>| list.iter().any(|source| self.matches(source, target));
        if self.lists.iter().all(allows) {
            return Ok(());
        }
        Err(BrowserError::Blocked {
            page: self.page.as_ref().map(Url::to_string).unwrap_or_default(),
            target: target.to_string(),
        })
    }

    fn matches(&self, source: &str, target: &Url) -> bool {
        match source {
            "'none'" => false,
            "'self'" => self.page.as_ref().is_some_and(|page| page.origin() == target.origin()),
            "*" => matches!(target.scheme(), "http" | "https"),
            _ => match source.strip_suffix(':') {
                Some(scheme) => target.scheme() == scheme,
                None => matches_host(source, target),
            },
        }
    }
}

fn form_action(policy: &str) -> Option<Vec<String>> {
    policy.split(';').find_map(|directive| {
        let mut words = directive.split_ascii_whitespace().map(str::to_ascii_lowercase);
        (words.next()? == "form-action").then(|| words.collect())
    })
}

fn matches_host(source: &str, target: &Url) -> bool {
    let (source, any_port) = source
        .strip_suffix(":*")
        .map_or((source, false), |source| (source, true));
    Url::parse(source).is_ok_and(|source| {
        source.origin() == target.origin()
            || any_port && source.scheme() == target.scheme() && source.host() == target.host()
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn sources_are_self_schemes_and_origins_and_every_policy_must_match() {
        let several = "form-action 'self' http://forgejo:3000 cursor:";
        let twice = ["form-action *", "form-action 'self'"];
        for (policies, target, allowed) in [
            (&[][..], "http://forgejo/", true),
            (&["default-src 'none'; child-src 'none'"], "cursor://x/y", true),
            (&["form-action 'self'"], "http://broker:1/x", true),
            (&["form-action 'self'"], "http://broker:2/x", false),
            (&["form-action 'none'"], "http://broker:1/x", false),
            (&[several], "http://forgejo:3000/login", true),
            (&[several], "cursor://x/y", true),
            (&["form-action http://127.0.0.1:*"], "http://127.0.0.1:4711/", true),
            (&["form-action *"], "cursor://x/y", false),
            (&twice, "http://forgejo/", false),
            (&[&twice.join(",")], "http://forgejo/", false),
        ] {
            let mut page = Page {
                url: "http://broker:1/oauth/authorize".parse().unwrap(),
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: String::new(),
            };
            for policy in policies {
                let policy = HeaderValue::from_str(policy).unwrap();
                page.headers.append(CONTENT_SECURITY_POLICY, policy);
            }
            let outcome = FormAction::of(&page).check(&target.parse().unwrap());
            assert_eq!(outcome.is_ok(), allowed, "{policies:?}: {target}");
        }
    }
}
