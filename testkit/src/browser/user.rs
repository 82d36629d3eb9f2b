//! The user: the actions on the pages of an authorization.
//!
//! The fields identify three pages: a broker's consent page (a button `decision=approve`),
//! Forgejo's sign-in page (`user_name`, `password`) and Forgejo's consent page (a button
//! `granted=true`). At any other page the user gives up, and the error quotes the page.

use http::Method;
use url::Url;

use super::{Browser, BrowserError, Form, MAX_REQUESTS, form_action::FormAction};

/// The buttons of the consent pages: name, value to approve, value to deny.
const BUTTONS: [(&str, &str, &str); 2] = [("decision", "approve", "deny"), ("granted", "true", "false")];

impl Browser {
    /// Opens `authorize_url`, approves on every consent page, signs in with `login` and `password`
    /// where necessary, and returns the redirect to an address that starts with `redirect_uri`. The
    /// redirect may carry an error.
    pub async fn authorize(
        &mut self,
        authorize_url: &Url,
        login: &str,
        password: &str,
        redirect_uri: &str,
    ) -> Result<Url, BrowserError> {
        self.walk(authorize_url, (login, password), redirect_uri, true).await
    }

    pub async fn deny(
        &mut self,
        authorize_url: &Url,
        login: &str,
        password: &str,
        redirect_uri: &str,
    ) -> Result<Url, BrowserError> {
        self.walk(authorize_url, (login, password), redirect_uri, false).await
    }

    async fn walk(
        &mut self,
        start: &Url,
        (login, password): (&str, &str),
        redirect_uri: &str,
        approve: bool,
    ) -> Result<Url, BrowserError> {
        // The normal form of URLs ignores a missing slash after the host.
        let destination = Url::parse(redirect_uri).map_or_else(|_| redirect_uri.to_owned(), String::from);
        let mut signed_in = false;
        // The page of the latest form, and its policy; redirects after the submission change
        // neither.
        let mut initiator: Option<Url> = None;
        let mut policy = FormAction::default();
        let mut page = self.get(start).await?;
        for _ in 0..MAX_REQUESTS {
            if let Some(next) = page.redirect() {
                policy.check(&next)?;
                if next.as_str().starts_with(&destination) {
                    return Ok(next);
                }
                page = self.request(Method::GET, next, initiator.as_ref(), None).await?;
                continue;
            }
            let forms = page.forms();
            let mut with_buttons = forms.iter().map(|form| (form, button(form, approve)));
            let consent = with_buttons.find_map(|(form, button)| Some((form, button?)));
            let is_sign_in = |form: &&Form| form.has_field("user_name") && form.has_field("password");
            let sign_in = forms.iter().find(is_sign_in);
            initiator = Some(page.url.clone());
            policy = FormAction::of(&page);
            page = match (consent, sign_in) {
                (Some((form, button)), _) => self.submit(&page, form, &[button]).await?,
                (None, Some(_)) if signed_in => {
                    return Err(BrowserError::SignInRefused { text: page.text() });
                }
                (None, Some(form)) => {
                    signed_in = true;
                    let values = [("user_name", login), ("password", password)];
                    self.submit(&page, form, &values).await?
                }
                (None, None) => {
                    return Err(BrowserError::Stuck {
                        text: page.text(),
                        status: page.status,
                        url: page.url.into(),
                    });
                }
            };
        }
        Err(BrowserError::TooManyRequests(MAX_REQUESTS))
    }
}

fn button(form: &Form, approve: bool) -> Option<(&'static str, &'static str)> {
    let mut buttons = BUTTONS.into_iter();
    let (name, yes, no) = buttons.find(|(name, yes, _)| form.has_button(name, yes))?;
    Some((name, if approve { yes } else { no }))
}
