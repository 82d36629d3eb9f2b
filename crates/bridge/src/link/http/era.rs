//! The question for the era of a server over HTTP (MCP 2026-07-28, transports, "Backward
//! Compatibility").
//!
//! The server gets a request of the modern era. A result, or an error that only this era has, is
//! its answer; any other refusal of the request is that of a legacy server. A refusal of the user
//! (401, 403) says nothing. Links wait for one question together, and later ones do not ask.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    endpoint::{Endpoint, SessionHeaders, UpstreamRequest, has_media_type},
    era_memory::Verdict,
    error::HttpError,
    events::{SseReader, StreamPosition, read_body},
    mirrored,
    user::UserEndpoint,
};
use crate::link::era::{EraAnswer, QUESTION, ServerEra};

/// The time that a server has to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// The errors that only the modern era has: a header differs, a capability is missing.
const MODERN_ERRORS: [i64; 2] = [-32020, -32021];

impl UserEndpoint {
    /// The era of the server, asked with the user's token if it is not known. Cancel safe.
    ///
    /// # Errors
    ///
    /// Any [`HttpError`] by which the server cannot be reached, or does not accept the user.
    pub(super) async fn era(&self) -> Result<ServerEra, HttpError> {
        let endpoint = &self.endpoint;
        if let Some(era) = endpoint.config.era {
            return Ok(era);
        }
        let mut verdict = endpoint.era_memory.verdict.lock().await;
        if let Some(known) = verdict.as_ref().filter(|verdict| verdict.is_valid(Instant::now())) {
            return Ok(known.answer.era());
        }
        let asking = async { read_answer(self.send(&question(), &SessionHeaders::default()).await?).await };
        self.has_asked.store(true, Ordering::Relaxed);
        let answer = timeout(PROBE_TIMEOUT, asking).await.unwrap_or(Ok(EraAnswer::Silent))?;
        tracing::info!(?answer, "the MCP server was asked for its protocol era");
        *verdict = Some(Verdict {
            answer,
            since: Instant::now(),
        });
        Ok(answer.era())
    }

    /// Doubts the era of the server, which does not behave as it says. True if the next link will
    /// ask for it.
    pub(super) async fn doubt_era(&self, era: ServerEra) -> bool {
        if self.endpoint.config.era.is_some() {
            return false;
        }
        let mut verdict = self.endpoint.era_memory.verdict.lock().await;
        if verdict.take_if(|verdict| verdict.answer.era() == era).is_some() {
            tracing::info!(?era, "the MCP server will be asked for its protocol era again");
        }
        let doubted = verdict.is_none();
        self.era_refused.fetch_or(doubted, Ordering::Relaxed);
        doubted
    }

    /// As [`doubt_era`](Self::doubt_era), because the server refuses the handshake. A link that has
    /// asked for the era itself has no reason for doubts.
    pub(super) async fn doubt_era_by_handshake(&self, era: ServerEra) -> bool {
        !self.has_asked.load(Ordering::Relaxed) && self.doubt_era(era).await
    }
}

impl Endpoint {
    /// Asks the server for its era, without a token. `None` if it does not accept that.
    ///
    /// # Errors
    ///
    /// Any [`HttpError`].
    pub(super) async fn ask_era(&self) -> Result<Option<EraAnswer>, HttpError> {
        let response = self.send(question(), &SessionHeaders::default(), None).await?;
        match read_answer(response).await {
            Err(HttpError::Refused(StatusCode::UNAUTHORIZED)) => Ok(None),
            answer => answer.map(Some),
        }
    }
}

fn question() -> UpstreamRequest {
    let line = Bytes::from_static(QUESTION.trim_ascii_end().as_bytes());
    let headers = mirrored::headers(&line);
    UpstreamRequest::Mirrored(line, None, headers)
}

/// Reads the answer of a server.
async fn read_answer(response: reqwest::Response) -> Result<EraAnswer, HttpError> {
    let status = response.status();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(HttpError::Refused(status)),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => return Ok(EraAnswer::Silent),
        _ if status.is_success() || status.is_client_error() => {}
        _other => return Ok(EraAnswer::Silent),
    }
    let body = if has_media_type(&response, "text/event-stream") {
        let mut events = SseReader::new(response, MAX_ANSWER, StreamPosition::default());
        loop {
            match events.next().await? {
                Some(data) if is_response(&data) => break data,
                Some(_) => {}
                None => return Ok(EraAnswer::Silent),
            }
        }
    } else {
        read_body(response, MAX_ANSWER).await?
    };
    let message = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let code = message["error"]["code"].as_i64();
    if status == StatusCode::BAD_REQUEST && code.is_some_and(|code| MODERN_ERRORS.contains(&code)) {
        return Ok(EraAnswer::Modern);
    }
    Ok(EraAnswer::of(&message))
}

fn is_response(data: &[u8]) -> bool {
    serde_json::from_slice::<Value>(data).is_ok_and(|message| message.get("method").is_none())
}
