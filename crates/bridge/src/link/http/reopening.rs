//! Opens a session again that the server has forgotten, from the record of the handshake.
//!
//! It runs to its end on a task of the session even if the message is cancelled: a session that is
//! half opened would remain at the server.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::{
    endpoint::{SessionHeaders, UpstreamRequest},
    error::HttpError,
    responses::PendingRequest,
    session::{ServerSession, may_mean_forgotten},
};
use crate::jsonrpc;

impl ServerSession {
    /// Opens the session again, unless its headers are no longer `stale`. `status` is the answer to
    /// a message in the session. False if the server still knows the session. Dropping the future
    /// does not undo it.
    pub(super) async fn reopen(
        self: &Arc<Self>,
        stale: &SessionHeaders,
        status: StatusCode,
    ) -> Result<bool, HttpError> {
        let guard = Arc::clone(&self.reopening).lock_owned().await;
        if self.headers() != *stale {
            return Ok(true);
        }
        // It may be the message that is refused.
        if status == StatusCode::BAD_REQUEST && self.is_known(stale).await? {
            return Ok(false);
        }
        let session = Arc::clone(self);
        let reopening = async move {
            let _guard = guard;
            session.replay().await
        };
        let reopened = self.tasks.spawn(reopening.in_current_span()).await;
        // The task was dropped with the runtime, or panicked.
        reopened.unwrap_or(Err(HttpError::SessionLost(None))).map(|()| true)
    }

    /// True if the server knows the session with these headers.
    async fn is_known(&self, headers: &SessionHeaders) -> Result<bool, HttpError> {
        let number = self.inbox.shared.step(|machine| machine.next_request());
        let ping = UpstreamRequest::Post(jsonrpc::ping(number), None);
        let response = self.send_as(&ping, headers).await?;
        Ok(!may_mean_forgotten(response.status()))
    }

    /// Replays the handshake, takes over the headers of the new session, and has the client's
    /// settings sent.
    async fn replay(&self) -> Result<(), HttpError> {
        let shared = &self.inbox.shared;
        let (number, line) = shared
            .step(|machine| machine.repeated_initialize())
            .ok_or(HttpError::SessionLost(None))?;
        let request = PendingRequest {
            line,
            number,
            handshake: true,
        };
        let opening = timeout(self.inbox.config.handshake_timeout, self.open(&request));
        let (fresh, answer) = match self.ended.run_until_cancelled(opening).await {
            Some(Ok(opened)) => opened.map_err(|error| match error {
                error if error.is_final() => error,
                error => HttpError::NotReopened(Some(Box::new(error))),
            })?,
            // The server may be back in a moment: the session is kept.
            Some(Err(_)) | None => return Err(HttpError::NotReopened(None)),
        };
        let checked = shared.step(|machine| machine.check_repeated(&answer));
        if let Ok(true) = checked {
            let confirmation = UpstreamRequest::Post(jsonrpc::initialized(), None);
            let confirming = timeout(self.inbox.config.handshake_timeout, self.send_as(&confirmation, &fresh));
            // If it fails, so does the message that follows.
            let _ = self.ended.run_until_cancelled(confirming).await;
        }
        // Also if the session does not fit, or has ended meanwhile: then it is deleted.
        self.set_headers(fresh);
        checked.map_err(|error| HttpError::SessionLost(Some(error)))?;
        tracing::info!("the MCP server had forgotten the session; it is open again");
        shared.step(|machine| {
            machine.send_settings(self.inbox.number);
            machine.send_probes(self.inbox.number);
        });
        Ok(())
    }
}
