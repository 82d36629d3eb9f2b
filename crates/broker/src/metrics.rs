//! The endpoint `/metrics`.
//!
//! It exists only with [`Broker::with_metrics`](crate::Broker::with_metrics). If a token is
//! configured, the request must bring it as a bearer token, which is unrelated to those of `/mcp`.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::{
    http_error::HttpError,
    ports::{Metrics, ResponseBody},
    response,
};

/// OpenMetrics 1.0, "Protocol Negotiation".
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
pub(crate) struct MetricsEndpoint {
    pub(crate) metrics: Arc<dyn Metrics>,
    /// `None` allows everyone.
    pub(crate) token: Option<SecretString>,
}

/// The response to GET.
pub(crate) fn exposition(endpoint: &MetricsEndpoint, headers: &HeaderMap) -> Result<Response<ResponseBody>, HttpError> {
    if !endpoint.may_read(headers) {
        return Err(HttpError::MetricsToken);
    }
    let text = endpoint.metrics.text().map_err(|error| {
        tracing::error!(error, "cannot encode the metrics");
        HttpError::MetricsFailed
    })?;
    Ok(response::whole(StatusCode::OK, OPENMETRICS, text))
}

impl MetricsEndpoint {
    fn may_read(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return false;
        };
        bearer(given.as_bytes()).is_some_and(|given| given.ct_eq(token.expose_secret().as_bytes()).into())
    }
}

/// RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
