//! The HTTP client for Forgejo.

use std::{error::Error as _, time::Duration};

use http::header;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};

use super::redact::redact;
use crate::{
    outbound_http,
    ports::{BoxFuture, UpstreamError},
};

/// The longest time for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time for an exchange.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest body that is read, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// A failed exchange: its cause, without the URL. A later try may succeed.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct TransportError {
    text: String,
    retry_after: Option<Duration>,
}

/// A client that can be shared.
#[derive(Clone, Debug)]
pub(super) struct HttpClient(pub(super) reqwest::Client);

impl HttpClient {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let client = outbound_http::client(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()?;
        Ok(Self(client))
    }

    /// Makes one exchange. A response that says "unavailable" is an error, so that its page is
    /// never taken for an answer.
    pub(super) async fn exchange(&self, request: reqwest::Request) -> Result<HttpResponse, TransportError> {
        let mut response = self.0.execute(request).await.map_err(|error| {
            let what = if error.is_timeout() {
                "no response in time"
            } else {
                "no response"
            };
            TransportError::new(what, &error)
        })?;
        let status = response.status();
        if outbound_http::is_unavailable(status) {
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(TransportError {
                text: format!("Forgejo answered with status {}", status.as_u16()),
                retry_after: seconds.map(Duration::from_secs),
            });
        }
        let body = outbound_http::read_body(&mut response, MAX_BODY).await;
        let body = body.map_err(|error| TransportError::new("the response broke off", &error))?;
        let too_long = || TransportError::from(format!("the response is longer than {MAX_BODY} bytes"));
        let mut answer = http::Response::new(body.ok_or_else(too_long)?);
        *answer.status_mut() = status;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

impl TransportError {
    /// Keeps the innermost cause, which says what happened.
    fn new(what: &str, error: &reqwest::Error) -> Self {
        let root = std::iter::successors(error.source(), |&error| error.source()).last();
        let cause = redact(&root.map(ToString::to_string).unwrap_or_default());
        format!("{what}: {cause}").into()
    }
}

impl From<String> for TransportError {
    fn from(text: String) -> Self {
        Self {
            text,
            retry_after: None,
        }
    }
}

impl From<TransportError> for UpstreamError {
    fn from(error: TransportError) -> Self {
        match error.retry_after {
            Some(retry_after) => Self::Busy { retry_after },
            None => Self::Unavailable(Box::new(error)),
        }
    }
}

impl<'c> AsyncHttpClient<'c> for HttpClient {
    type Error = TransportError;
    type Future = BoxFuture<'c, Result<HttpResponse, TransportError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let request = request.try_into();
            let request = request.map_err(|error| TransportError::new("the request is invalid", &error))?;
            self.exchange(request).await
        })
    }
}
