//! The HTTP client for Forgejo: no redirects, no proxies from the environment, a time limit and a size limit.

use std::time::Duration;

use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};

use super::answers::root_cause;
use crate::ports::BoxFuture;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an exchange may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest body that is read, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// Why there was no answer. A later try may succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// The request could not be sent or the answer not be read. The text holds the cause, without the URL.
    #[error("{what}: {cause}")]
    Transport { what: &'static str, cause: String },
    /// The server is in trouble (5xx, 429).
    #[error("Forgejo answered with status {0}")]
    Status(u16),
    /// The body is longer than the limit.
    #[error("the answer is longer than {MAX_BODY} bytes")]
    TooLong,
}

/// A client that can be shared.
#[derive(Clone, Debug)]
pub(super) struct HttpClient(reqwest::Client);

impl HttpClient {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // Whoever installs a provider first wins; it is this one in every process that has a broker in it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent("forgejo-mcp-broker")
            .build()?;
        Ok(Self(client))
    }

    /// One exchange. A server in trouble is an error, so that its page is never taken for an answer.
    pub(super) async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let transport = |what| {
            move |error: reqwest::Error| HttpError::Transport {
                what,
                cause: root_cause(&error),
            }
        };
        let request = request.try_into().map_err(transport("the request cannot be made"))?;
        let mut response = self.0.execute(request).await.map_err(|error| {
            let what = if error.is_timeout() {
                "no answer in time"
            } else {
                "no answer"
            };
            transport(what)(error)
        })?;
        let status = response.status();
        if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(HttpError::Status(status.as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport("the answer broke off"))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(HttpError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

impl<'c> AsyncHttpClient<'c> for HttpClient {
    type Error = HttpError;
    type Future = BoxFuture<'c, Result<HttpResponse, HttpError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.exchange(request))
    }
}
