//! The person: what to do with the pages of an authorization.
//!
//! Three pages are known by their fields: a broker's consent page (a button `decision=approve`), Forgejo's sign-in page
//! (`user_name`, `password`) and Forgejo's consent page (a button `granted=true`). At any other the person gives up, and
//! the error quotes the page.

use http::Method;
use url::Url;

use super::{Browser, BrowserError, Form, MOST_STEPS, policy::FormAction};

/// What the person does at a consent page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Approve,
    Deny,
}

impl Browser {
    /// Opens `authorize_url`, says yes on every consent page, signs in with `login` and `password` where asked to, and
    /// returns the redirect to something that starts with `redirect_uri`, which may well carry an error.
    ///
    /// # Errors
    ///
    /// [`BrowserError`], with what the last page said.
    pub async fn authorize(
        &mut self,
        authorize_url: &Url,
        login: &str,
        password: &str,
        redirect_uri: &str,
    ) -> Result<Url, BrowserError> {
        self.walk(authorize_url, (login, password), redirect_uri, Decision::Approve)
            .await
    }

    /// As [`authorize`](Self::authorize), but says no on the first consent page.
    ///
    /// # Errors
    ///
    /// [`BrowserError`], with what the last page said.
    pub async fn deny(
        &mut self,
        authorize_url: &Url,
        login: &str,
        password: &str,
        redirect_uri: &str,
    ) -> Result<Url, BrowserError> {
        self.walk(authorize_url, (login, password), redirect_uri, Decision::Deny)
            .await
    }

    async fn walk(
        &mut self,
        start: &Url,
        (login, password): (&str, &str),
        redirect_uri: &str,
        decision: Decision,
    ) -> Result<Url, BrowserError> {
        // In the normal form of URLs, so that a missing slash after the host does not matter.
        let wanted = Url::parse(redirect_uri).map_or_else(|_| redirect_uri.to_owned(), String::from);
        let mut signed_in = false;
        // The page whose form led on, and what it lets the form lead to; redirects in between change neither.
        let mut initiator: Option<Url> = None;
        let mut policy = FormAction::default();
        let mut page = self.get(start).await?;
        for _ in 0..MOST_STEPS {
            if let Some(next) = page.redirect() {
                policy.check(&next)?;
                if next.as_str().starts_with(&wanted) {
                    return Ok(next);
                }
                page = self.request(Method::GET, next, initiator.as_ref(), None).await?;
                continue;
            }
            let forms = page.forms();
            let consent = forms.iter().find_map(|form| Some((form, choice(form, decision)?)));
            let login_form = forms
                .iter()
                .find(|form| form.has_field("user_name") && form.has_field("password"));
            initiator = Some(page.url.clone());
            policy = FormAction::of(&page);
            page = match (consent, login_form) {
                (Some((form, button)), _) => self.submit(&page, form, &[button]).await?,
                (None, Some(_)) if signed_in => {
                    return Err(BrowserError::SignInRefused { text: page.text() });
                }
                (None, Some(form)) => {
                    signed_in = true;
                    self.submit(&page, form, &[("user_name", login), ("password", password)])
                        .await?
                }
                (None, None) => {
                    let text = page.text();
                    return Err(BrowserError::Stuck {
                        url: page.url.into(),
                        status: page.status,
                        text,
                    });
                }
            };
        }
        Err(BrowserError::TooManySteps(MOST_STEPS))
    }
}

/// The button to press, if the form is a consent page's.
fn choice(form: &Form, decision: Decision) -> Option<(&'static str, &'static str)> {
    let known = [
        (("decision", "approve"), ("decision", "deny")),
        (("granted", "true"), ("granted", "false")),
    ];
    let (yes, no) = known
        .into_iter()
        .find(|((name, value), _)| form.has_button(name, value))?;
    Some(if decision == Decision::Approve { yes } else { no })
}
