//! The endpoint for one user and one link: each message has the user's current token.
//!
//! A renewal therefore changes nothing here. A token that is not accepted (401) is replaced before
//! the conversation sees it, once for a message, since the server has not acted on it. A 403 is
//! about permission: another token of the user would have no more.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use http::{HeaderValue, StatusCode};

use super::{
    endpoint::{Endpoint, SessionHeaders, UpstreamRequest},
    error::HttpError,
    token::TokenSource,
};

pub(super) struct UserEndpoint {
    pub(super) endpoint: Arc<Endpoint>,
    tokens: Arc<dyn TokenSource>,
    last_token: Mutex<Option<HeaderValue>>,
    /// The server was asked for its era here.
    pub(super) has_asked: AtomicBool,
    /// Set when the server does not behave as its era says.
    pub(super) era_refused: Arc<AtomicBool>,
}

impl UserEndpoint {
    /// The flag is set when the server does not behave as its era says.
    pub(super) fn new(endpoint: Arc<Endpoint>, tokens: Arc<dyn TokenSource>, era_refused: Arc<AtomicBool>) -> Self {
        Self {
            has_asked: AtomicBool::new(false),
            era_refused,
            endpoint,
            tokens,
            last_token: Mutex::default(),
        }
    }

    /// Sends a request. Returns the response, of any status.
    ///
    /// # Errors
    ///
    /// [`HttpError::Unreachable`] and [`HttpError::Token`].
    pub(super) async fn send(
        &self,
        request: &UpstreamRequest,
        headers: &SessionHeaders,
    ) -> Result<reqwest::Response, HttpError> {
        let mut token = self.tokens.current().await?;
        let mut replaced = false;
        loop {
            *self.last_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
            let response = self.endpoint.send(request.clone(), headers, Some(&token)).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || mem::replace(&mut replaced, true) {
                return Ok(response);
            }
            match self.tokens.replacement(&token).await? {
                Some(replacement) => token = replacement,
                None => return Ok(response),
            }
        }
    }

    /// The token that was sent last, for a final message: no token is renewed for that.
    pub(super) fn last_token(&self) -> Option<HeaderValue> {
        self.last_token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
