//! `/metrics`: what has been counted, for whoever may know.
//!
//! Without [`Broker::with_metrics`](crate::Broker::with_metrics) there is no such path. With a token the request has to bring it as
//! a bearer; it has nothing to do with the bearers of `/mcp`.

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

/// The metrics, and who may read them.
#[derive(Debug)]
pub(crate) struct MetricsEndpoint {
    pub(crate) metrics: Arc<dyn Metrics>,
    /// `None`: whoever reaches the broker.
    pub(crate) token: Option<SecretString>,
}

/// The answer to GET.
pub(crate) fn exposition(
    counted: Option<&MetricsEndpoint>,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, HttpError> {
    let counted = counted.ok_or(HttpError::NotFound)?;
    if !counted.may_read(headers) {
        return Err(HttpError::MetricsToken);
    }
    let text = counted.metrics.text().map_err(|error| {
        tracing::error!(error, "the metrics cannot be written down");
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

/// RFC 6750 section 2.1; the name of the scheme is in any case (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
