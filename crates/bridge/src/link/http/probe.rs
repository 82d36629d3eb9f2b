//! A check that there is an MCP server at an endpoint, without a user's token.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::timeout;

use super::{
    endpoint::{Endpoint, SESSION_ID, SessionHeaders, UpstreamRequest, has_media_type},
    error::HttpError,
};
use crate::{
    BoxError,
    link::era::{EraAnswer, ServerEra},
};

/// A handshake; of its response only the status and the media type matter.
const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"forgejo-mcp-broker","version":"0"}}}"#;

impl Endpoint {
    /// Opens a session without a token and ends it again, or asks a server of the modern era what
    /// it is. A server that asks for a token passes too.
    ///
    /// # Errors
    ///
    /// There is no MCP server, or it does not respond in time.
    pub async fn probe(&self) -> Result<(), BoxError> {
        let limit = self.config.connect_timeout + self.config.stop_grace;
        let probed = timeout(limit, self.open_and_close()).await;
        Ok(probed.map_err(|_elapsed| "no response in time")??)
    }

    async fn open_and_close(&self) -> Result<(), HttpError> {
        if self.config.era != Some(ServerEra::Legacy) {
            match self.ask_era().await? {
                None | Some(EraAnswer::Modern) => return Ok(()),
                Some(_) if self.config.era.is_some() => return Err(HttpError::NotMcp),
                Some(_) => {}
            }
        }
        let initialize = UpstreamRequest::Post(Bytes::from_static(INITIALIZE), None);
        let response = self.send(initialize, &SessionHeaders::default(), None).await?;
        let session = response.headers().get(SESSION_ID).cloned();
        match response.status() {
            StatusCode::UNAUTHORIZED => return Ok(()),
            status if !status.is_success() => return Err(HttpError::Refused(status)),
            _ if !has_media_type(&response, "application/json") && !has_media_type(&response, "text/event-stream") => {
                return Err(HttpError::NotMcp);
            }
            _ => drop(response),
        }
        if session.is_some() {
            let headers = SessionHeaders { session, version: None };
            self.send(UpstreamRequest::Delete, &headers, None).await?;
        }
        Ok(())
    }
}
