//! The `form-action` directive of a content security policy (CSP level 3, section 6.4.1).
//!
//! Chromium applies it to the form's target and to every redirect that follows the submission, Firefox to the target alone.
//! This browser does as Chromium, since a consent page that works only elsewhere does not work. Left out: every other
//! directive, and paths and wildcards in host names of a source.

use http::header::CONTENT_SECURITY_POLICY;
use url::Url;

use super::{BrowserError, Page};

/// What a page lets its forms lead to.
#[derive(Debug, Default)]
pub(super) struct FormAction {
    page: Option<Url>,
    /// One list of sources for each policy that has the directive; each of them must agree.
    lists: Vec<Vec<String>>,
}

impl FormAction {
    pub(super) fn of(page: &Page) -> Self {
        let policies = page.headers.get_all(CONTENT_SECURITY_POLICY).iter();
        let lists = policies
            .filter_map(|policy| policy.to_str().ok())
            .flat_map(|policy| policy.split(','))
            .filter_map(form_action)
            .collect();
        Self {
            page: Some(page.url.clone()),
            lists,
        }
    }

    pub(super) fn check(&self, target: &Url) -> Result<(), BrowserError> {
        let allows = |list: &Vec<String>| list.iter().any(|source| self.matches(source, target));
        if self.lists.iter().all(allows) {
            return Ok(());
        }
        let page = self.page.as_ref().map(Url::to_string).unwrap_or_default();
        Err(BrowserError::Blocked {
            page,
            target: target.to_string(),
        })
    }

    fn matches(&self, source: &str, target: &Url) -> bool {
        let network = matches!(target.scheme(), "http" | "https");
        match source {
            "'none'" => false,
            "'self'" => self.page.as_ref().is_some_and(|page| page.origin() == target.origin()),
            "*" => network,
            _ => match source.strip_suffix(':') {
                Some(scheme) => target.scheme() == scheme,
                None => matches_host(source, target),
            },
        }
    }
}

/// The sources of the first `form-action` of one policy.
fn form_action(policy: &str) -> Option<Vec<String>> {
    policy.split(';').find_map(|directive| {
        let mut words = directive.split_ascii_whitespace().map(str::to_ascii_lowercase);
        (words.next()? == "form-action").then(|| words.collect())
    })
}

fn matches_host(source: &str, target: &Url) -> bool {
    match source.strip_suffix(":*") {
        Some(source) => {
            Url::parse(source).is_ok_and(|source| source.scheme() == target.scheme() && source.host() == target.host())
        }
        None => Url::parse(source).is_ok_and(|source| source.origin() == target.origin()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_SECURITY_POLICY};

    use super::{FormAction, Page};

    fn allows(policies: &[&'static str], target: &str) -> bool {
        let mut headers = HeaderMap::new();
        for policy in policies {
            headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        }
        let url = "http://broker:1/oauth/authorize".parse().unwrap();
        let page = Page {
            url,
            status: StatusCode::OK,
            headers,
            body: String::new(),
        };
        FormAction::of(&page).check(&target.parse().unwrap()).is_ok()
    }

    #[test]
    fn without_the_directive_everything_goes() {
        assert!(allows(&[], "http://forgejo/"));
        assert!(allows(&["default-src 'none'; frame-ancestors 'none'"], "cursor://x/y"));
    }

    #[test]
    fn sources_are_self_schemes_and_origins() {
        assert!(allows(&["form-action 'self'"], "http://broker:1/x"));
        assert!(!allows(&["form-action 'self'"], "http://broker:2/x"));
        assert!(!allows(&["form-action 'none'"], "http://broker:1/x"));
        assert!(allows(
            &["form-action 'self' http://forgejo:3000 cursor:"],
            "http://forgejo:3000/login"
        ));
        assert!(allows(
            &["form-action 'self' http://forgejo:3000 cursor:"],
            "cursor://x/y"
        ));
        assert!(allows(
            &["form-action http://127.0.0.1:*"],
            "http://127.0.0.1:4711/callback"
        ));
        assert!(!allows(&["form-action *"], "cursor://x/y"));
    }

    #[test]
    fn every_policy_must_agree() {
        assert!(!allows(&["form-action *", "form-action 'self'"], "http://forgejo/"));
        assert!(!allows(&["form-action *, form-action 'self'"], "http://forgejo/"));
    }
}
