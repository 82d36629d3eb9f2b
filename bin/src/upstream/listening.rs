//! What the server says on its own account: a stream that is open while a client of the session listens.
//!
//! A server that has no such stream says so once (405), and is not asked again. A stream that ends is asked for again behind its
//! last event, at the pace that the server asks for, and ever more slowly while it fails.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    endpoint::{Call, is_of_type},
    events::{EventStream, Place},
    link::Link,
    message,
    trouble::Trouble,
};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a stream went.
enum Heard {
    /// It was there, and has ended.
    Ended,
    /// The server has none.
    Nothing,
}

impl Link {
    /// Writes the server's own messages to `lines` for as long as anyone listens. Ends when there is nothing to hear, or nobody is
    /// left who could listen; with [`Trouble::Lost`] when the session is lost.
    pub(super) async fn listen(
        &self,
        mut listeners: watch::Receiver<usize>,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), Trouble> {
        let mut place = Place::default();
        let mut failures = 0;
        loop {
            if listeners.wait_for(|count| *count > 0).await.is_err() {
                return Ok(());
            }
            let outcome = tokio::select! {
                outcome = self.hear(&mut place, lines) => outcome,
                _ = listeners.wait_for(|count| *count == 0) => continue,
            };
            match outcome {
                Ok(Heard::Ended) => failures = 0,
                Ok(Heard::Nothing) => return Ok(()),
                Err(trouble) if trouble.is_final() => return Err(trouble),
                Err(trouble) => {
                    failures += 1;
                    tracing::debug!(session = %self.tag, reason = trouble.describe(), "cannot listen to the server now");
                }
            }
            let pause = place.retry.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
            tokio::select! {
                () = sleep(pause) => {}
                _ = listeners.wait_for(|count| *count == 0) => {}
            }
        }
    }

    async fn hear(&self, place: &mut Place, lines: &mpsc::Sender<Bytes>) -> Result<Heard, Trouble> {
        let (response, _) = self.send(&Call::Listen(place.last_id.clone())).await?;
        let status = response.status();
        // MCP 2025-11-25, transports, "Listening for Messages from the Server": without a stream there, 405.
        if status == StatusCode::METHOD_NOT_ALLOWED
            || status.is_success() && !is_of_type(&response, "text/event-stream")
        {
            return Ok(Heard::Nothing);
        }
        if !status.is_success() {
            return Err(Trouble::Refused(status));
        }
        let mut events = EventStream::new(response, self.endpoint.config.max_message, place.clone());
        loop {
            let next = events.next().await;
            place.clone_from(events.place());
            match next? {
                // Fails only when the bridge has hung up, and then the carrier ends.
                Some(data) => drop(lines.send(message::line(data)).await),
                None => return Ok(Heard::Ended),
            }
        }
    }
}
