//! A user at a browser, who opens an address, fills in forms, and stops at the client's redirect
//! URI.
//!
//! The browser keeps cookies, shows forms and enforces `form-action`; the user
//! ([`authorize`](Browser::authorize), [`deny`](Browser::deny)) knows a few pages. The browser
//! follows redirects one by one, so that it returns the one to the client's redirect URI without
//! following it: nothing needs to listen there. Left out: scripts, images, frames.

mod cookies;
mod form_action;
mod page;
#[cfg(test)]
mod tests;
mod user;

use std::time::Duration;

use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, COOKIE, ORIGIN},
};
use thiserror::Error;
use url::{Url, form_urlencoded};

pub use self::{
    cookies::Cookie,
    page::{Form, Page},
};
use self::{cookies::CookieJar, form_action::FormAction};
use crate::http_client;

#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    cookies: CookieJar,
    visited: Vec<Visit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    pub method: Method,
    pub url: Url,
    pub status: StatusCode,
}

#[derive(Debug, Error)]
pub enum BrowserError {
    #[error("no answer from {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("stuck at {url} ({status}): {text}")]
    Stuck {
        url: String,
        status: StatusCode,
        text: String,
    },
    #[error("the sign-in was refused: {text}")]
    SignInRefused { text: String },
    #[error("the page {page} forbids its form to lead to {target}")]
    Blocked { page: String, target: String },
    #[error("no end after {0} requests")]
    TooManyRequests(usize),
}

/// More requests than any sign-in takes, fewer than a redirect loop.
const MAX_REQUESTS: usize = 24;

impl Browser {
    #[expect(clippy::new_without_default, reason = "a browser is made in one way")]
    pub fn new() -> Self {
        Self {
            http: http_client::client(Duration::from_secs(30)),
            cookies: CookieJar::default(),
            visited: Vec::new(),
        }
    }

    /// Opens an address as if the user had typed it. It makes one request and does not follow a
    /// redirect.
    pub async fn get(&mut self, url: &Url) -> Result<Page, BrowserError> {
        self.request(Method::GET, url.clone(), None, None).await
    }

    pub async fn open(&mut self, url: &Url) -> Result<Page, BrowserError> {
        let mut page = self.get(url).await?;
        for _ in 0..MAX_REQUESTS {
            match page.redirect() {
                Some(next) => page = self.get(&next).await?,
                None => return Ok(page),
            }
        }
        Err(BrowserError::TooManyRequests(MAX_REQUESTS))
    }

    /// Submits a form of `page`, with `values` filled in, the name and value of the pressed button
    /// among them. It makes one request and does not follow a redirect.
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

    pub fn cookies(&self) -> &[Cookie] {
        self.cookies.all()
    }

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
        if let Some(cookies) = self.cookies.header(&method, &url, initiator) {
            request = request.header(COOKIE, cookies);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            request = request.body(body);
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
        self.cookies.store(&url, &headers);
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
