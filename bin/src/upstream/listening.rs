//! What the server says on its own account: a stream that is open while a client of the session listens.
//!
//! A server that has no such stream says so once (405), and is not asked again. A stream that ends is asked for again behind its
//! last event, at the pace that the server asks for, and ever more slowly while it fails or brings nothing. Events belong to the session
//! at the server in which they came: in another one, and after a refusal, the stream is begun anew.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    endpoint::{Call, Standing, is_of_type},
    events::{EventStream, Place},
    link::Link,
    message,
    trouble::Trouble,
};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a stream went.
enum Heard {
    /// It was there, and has ended after something had come.
    Ended,
    /// It was there, and has ended without anything new.
    Silent,
    /// The server has none.
    Nothing,
}

/// How far the server was heard.
#[derive(Debug, Default)]
struct Mark {
    place: Place,
    /// The session in which that was.
    standing: Standing,
}

impl Link {
    /// Writes the server's own messages to `lines` for as long as anyone listens. Ends when there is nothing to hear, or nobody is
    /// left who could listen; with [`Trouble::Lost`] when the session is lost.
    pub(super) async fn listen(
        self: &Arc<Self>,
        mut listeners: watch::Receiver<usize>,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), Trouble> {
        let mut mark = Mark::default();
        let mut failures = 0_u32;
        loop {
            if listeners.wait_for(|count| *count > 0).await.is_err() {
                return Ok(());
            }
            let outcome = tokio::select! {
                outcome = self.hear(&mut mark, lines) => outcome,
                _ = listeners.wait_for(|count| *count == 0) => continue,
            };
            match outcome {
                Ok(Heard::Ended) => failures = 0,
                Ok(Heard::Silent) => failures = failures.saturating_add(1),
                Ok(Heard::Nothing) => return Ok(()),
                Err(trouble) if trouble.is_final() => return Err(trouble),
                Err(trouble) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(session = %self.tag, reason = trouble.describe(), "cannot listen to the server now");
                }
            }
            let pause = mark.place.retry.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
            tokio::select! {
                () = sleep(pause) => {}
                _ = listeners.wait_for(|count| *count == 0) => {}
            }
        }
    }

    async fn hear(self: &Arc<Self>, mark: &mut Mark, lines: &mpsc::Sender<Bytes>) -> Result<Heard, Trouble> {
        let (response, standing) = self.send(|standing| Call::Listen(mark.behind(standing))).await?;
        if standing != mark.standing {
            *mark = Mark {
                place: Place::default(),
                standing,
            };
        }
        let place = &mut mark.place;
        let status = response.status();
        if status.is_client_error() {
            *place = Place::default();
        }
        // MCP 2025-11-25, transports, "Listening for Messages from the Server": without a stream there, 405. One that does not know the
        // path (404) in a session that it has only just opened has none either.
        if matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND)
            || status.is_success() && !is_of_type(&response, "text/event-stream")
        {
            return Ok(Heard::Nothing);
        }
        if !status.is_success() {
            return Err(Trouble::Refused(status));
        }
        let mut events = EventStream::new(response, self.endpoint.config.max_message, place.clone());
        let before = place.last_id.clone();
        let mut came = false;
        loop {
            let next = events.next().await;
            place.clone_from(events.place());
            match next? {
                Some(data) => {
                    came = true;
                    // Fails only when the bridge has hung up, and then the carrier ends.
                    drop(lines.send(message::line(data)).await);
                }
                None if came || place.last_id != before => return Ok(Heard::Ended),
                None => return Ok(Heard::Silent),
            }
        }
    }
}

impl Mark {
    /// The event behind which to go on in this session.
    fn behind(&self, standing: &Standing) -> Option<String> {
        let last_id = (*standing == self.standing).then_some(self.place.last_id.as_ref());
        last_id.flatten().cloned()
    }
}
