//! The HTTP clients of this crate: no redirect, no proxy from the environment, and a limit to time
//! and size.

use std::time::Duration;

use http::StatusCode;

/// A client in which one exchange takes `timeout` at most.
pub(crate) fn client(timeout: Duration) -> reqwest::ClientBuilder {
    // Only the first call in a process counts, and every process that has a broker in it makes the
    // same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .user_agent("forgejo-mcp-broker")
}

/// Reads the body of a response. `None`: it is longer than `limit`, in bytes.
pub(crate) async fn read_body(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Reports whether a status says that a later try may succeed.
pub(crate) fn is_unavailable(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
