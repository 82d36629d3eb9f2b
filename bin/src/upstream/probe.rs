//! Whether there is an MCP server at an endpoint: what can be found out without anybody's token.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::timeout;

use super::{
    endpoint::{Call, Endpoint, SESSION_ID, Standing, is_of_type},
    trouble::Trouble,
};

/// A handshake, of which only the fact that it is answered matters.
const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"forgejo-mcp-broker","version":"0"}}}"#;

/// Why there seems to be no such server.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It did not answer as an MCP server does.
    #[error("{0}")]
    Trouble(String),
}

impl Endpoint {
    /// Opens a session without a token and ends it again. A server that asks for a token is there too.
    ///
    /// # Errors
    ///
    /// Any [`ProbeError`].
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let limit = self.config.connect_timeout + self.config.stop_grace;
        let probed = timeout(limit, self.open_and_close())
            .await
            .map_err(|_| ProbeError::TimedOut)?;
        probed.map_err(|trouble| ProbeError::Trouble(trouble.describe()))
    }

    async fn open_and_close(&self) -> Result<(), Trouble> {
        let call = Call::Post(Bytes::from_static(INITIALIZE));
        let response = self.send(&call, &Standing::default(), None).await?;
        let session = response.headers().get(SESSION_ID).cloned();
        match response.status() {
            StatusCode::UNAUTHORIZED => return Ok(()),
            status if !status.is_success() => return Err(Trouble::Refused(status)),
            _ if !is_of_type(&response, "application/json") && !is_of_type(&response, "text/event-stream") => {
                return Err(Trouble::NotMcp);
            }
            _ => drop(response),
        }
        if session.is_some() {
            let standing = Standing { session, version: None };
            self.send(&Call::Delete, &standing, None).await?;
        }
        Ok(())
    }
}
