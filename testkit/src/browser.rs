//! A person at a browser: opens an address, fills in the forms that come, and ends where the client waits.
//!
//! The browser keeps cookies, shows forms and obeys `form-action`; the person ([`authorize`](Browser::authorize),
//! [`deny`](Browser::deny)) knows what to do with a few pages. Redirects are followed by hand, so that the one to the
//! client's redirect URI is returned and not followed: nobody needs to listen there. Left out: scripts, images, frames.

mod cookies;
mod page;
mod person;
mod policy;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, COOKIE, ORIGIN},
};
use thiserror::Error;
use url::{Url, form_urlencoded};

use self::{cookies::Jar, policy::FormAction};
pub use self::{
    cookies::{Cookie, SameSite},
    page::{Form, Page},
};
use crate::plain;

/// A browser with its cookies and the list of what it visited.
#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    jar: Jar,
    visited: Vec<Visit>,
}

/// One request that the browser made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// GET or POST.
    pub method: Method,
    /// The address.
    pub url: Url,
    /// What came back.
    pub status: StatusCode,
}

/// Why the person did not arrive.
#[derive(Debug, Error)]
pub enum BrowserError {
    /// An address cannot be opened.
    #[error("no answer from {url}")]
    Unreachable {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// A page came that the person does not know what to do with, such as an error page.
    #[error("stuck at {url} ({status}): {text}")]
    Stuck {
        /// The page's address.
        url: String,
        /// Its status.
        status: StatusCode,
        /// What it says, shortened.
        text: String,
    },
    /// The sign-in page came back.
    #[error("the sign-in was refused: {text}")]
    SignInRefused {
        /// What the page says, shortened.
        text: String,
    },
    /// The content security policy of a page forbids its form to lead there.
    #[error("the page {page} forbids its form to lead to {target}")]
    Blocked {
        /// The page with the form.
        page: String,
        /// Where the form, or a redirect after it, would have led.
        target: String,
    },
    /// More pages came than any sign-in has.
    #[error("still not there after {0} requests")]
    TooManySteps(usize),
}

/// More than any sign-in takes, fewer than a redirect loop would.
const MOST_STEPS: usize = 24;

impl Browser {
    /// A browser without cookies.
    pub fn new() -> Self {
        Self {
            http: plain::client(Duration::from_secs(30)),
            jar: Jar::default(),
            visited: Vec::new(),
        }
    }

    /// Opens an address as if the person had typed it. One request: a redirect is returned as it is.
    ///
    /// # Errors
    ///
    /// [`BrowserError::Unreachable`].
    pub async fn get(&mut self, url: &Url) -> Result<Page, BrowserError> {
        self.request(Method::GET, url.clone(), None, None).await
    }

    /// Opens an address as [`get`](Self::get) does and follows redirects.
    ///
    /// # Errors
    ///
    /// [`BrowserError::Unreachable`], [`BrowserError::TooManySteps`].
    pub async fn open(&mut self, url: &Url) -> Result<Page, BrowserError> {
        let mut page = self.get(url).await?;
        for _ in 0..MOST_STEPS {
            match page.redirect() {
                Some(next) => page = self.get(&next).await?,
                None => return Ok(page),
            }
        }
        Err(BrowserError::TooManySteps(MOST_STEPS))
    }

    /// Submits a form that `page` shows, with `values` filled in (put the name and value of the pressed button there
    /// too). One request: a redirect is returned as it is.
    ///
    /// # Errors
    ///
    /// [`BrowserError::Unreachable`]; [`BrowserError::Blocked`] if the page forbids the form its target.
    pub async fn submit(&mut self, page: &Page, form: &Form, values: &[(&str, &str)]) -> Result<Page, BrowserError> {
        FormAction::of(page).check(&form.action)?;
        let fields = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form.filled(values))
            .finish();
        let mut action = form.action.clone();
        let body = if form.method == Method::POST {
            Some(Bytes::from(fields))
        } else {
            action.set_query(Some(&fields));
            None
        };
        self.request(form.method.clone(), action, Some(&page.url), body).await
    }

    /// The cookies that the browser has now.
    pub fn cookies(&self) -> &[Cookie] {
        self.jar.cookies()
    }

    /// Puts a cookie in, in place of the one with its host, name and path.
    pub fn put_cookie(&mut self, cookie: Cookie) {
        self.jar.put(cookie);
    }

    /// Forgets all cookies: the person is signed in nowhere.
    pub fn clear_cookies(&mut self) {
        self.jar.clear();
    }

    /// Every request so far, in order.
    pub fn visited(&self) -> &[Visit] {
        &self.visited
    }

    async fn request(
        &mut self,
        method: Method,
        url: Url,
        initiator: Option<&Url>,
        body: Option<Bytes>,
    ) -> Result<Page, BrowserError> {
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(cookies) = self.jar.header(&method, &url, initiator) {
            request = request.header(COOKIE, cookies);
        }
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body);
            if let Some(page) = initiator {
                request = request.header(ORIGIN, page.origin().ascii_serialization());
            }
        }
        let failed = |source| BrowserError::Unreachable {
            url: url.to_string(),
            source,
        };
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        self.jar.take(&url, &headers);
        self.visited.push(Visit {
            method,
            url: url.clone(),
            status,
        });
        let body = response.bytes().await.map_err(failed)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Page {
            url,
            status,
            headers,
            body,
        })
    }
}

impl Default for Browser {
    fn default() -> Self {
        Self::new()
    }
}
