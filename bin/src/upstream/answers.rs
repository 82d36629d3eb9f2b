//! How the answer to a request comes: as JSON, as an event stream, or as an event stream in pieces.
//!
//! A stream that ends before the answer is asked for again behind its last event (MCP 2025-11-25, transports, "Resumability and
//! Redelivery"), since a server may close a connection whenever it likes. One without ids has broken off.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::mpsc, time::sleep};

use super::{
    endpoint::{Call, SESSION_ID, Standing, is_of_type},
    events::{EventStream, Place},
    link::Link,
    message,
    trouble::Trouble,
};

/// How often in a row a stream is asked for again without anything having come, be it but the id of an event: a server may have its
/// client poll. How long that may go on is the bridge's limit for the request.
const RESUMPTIONS: u32 = 5;
/// The longest session id that is taken, in bytes.
const LONGEST_SESSION_ID: usize = 1024;

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    /// The message.
    pub(super) message: Bytes,
    /// Its id, as JSON text.
    pub(super) id: String,
    /// Whether it opens the session.
    pub(super) handshake: bool,
}

impl Link {
    /// Sends a request, and writes what comes for it to `lines`, the answer last.
    ///
    /// # Errors
    ///
    /// Any [`Trouble`]; then the answer has not been written.
    pub(super) async fn ask(self: &Arc<Self>, request: &Request, lines: &mpsc::Sender<Bytes>) -> Result<(), Trouble> {
        let call = Call::Post(request.message.clone());
        let (response, mut standing) = if request.handshake {
            let standing = Standing::default();
            (self.send_as(&call, &standing).await?, standing)
        } else {
            self.send(|_| call.clone()).await?
        };
        let status = response.status();
        if request.handshake {
            standing.session = response.headers().get(SESSION_ID).cloned();
            if standing
                .session
                .as_ref()
                .is_some_and(|id| id.len() > LONGEST_SESSION_ID)
            {
                return Err(Trouble::NotMcp);
            }
        }
        if status.is_success() && is_of_type(&response, "text/event-stream") {
            return self.follow(request, response, &standing, lines).await;
        }
        if !is_of_type(&response, "application/json") {
            return Err(if status.is_success() {
                Trouble::NotMcp
            } else {
                Trouble::Refused(status)
            });
        }
        let answer = self.endpoint.whole(response).await?;
        if message::answers(&answer, &request.id) {
            self.pass(request, answer, &standing, lines).await;
            Ok(())
        } else if status.is_success() {
            Err(Trouble::NotMcp)
        } else {
            Err(Trouble::Refused(status))
        }
    }

    /// Sends a message that nobody waits for an answer to.
    ///
    /// # Errors
    ///
    /// Any [`Trouble`] but those of a body.
    pub(super) async fn tell(self: &Arc<Self>, message: Bytes) -> Result<(), Trouble> {
        let (response, _) = self.send(|_| Call::Post(message.clone())).await?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(Trouble::Refused(status))
        }
    }

    /// Writes what a stream brings. The rest of one that ends early is asked for where it began: at the session as it stood then,
    /// should there be another meanwhile.
    async fn follow(
        self: &Arc<Self>,
        request: &Request,
        response: reqwest::Response,
        standing: &Standing,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), Trouble> {
        let limit = self.endpoint.config.max_message;
        let mut events = EventStream::new(response, limit, Place::default());
        let mut tries = 0;
        let mut seen = None;
        loop {
            match events.next().await {
                Ok(Some(data)) => {
                    tries = 0;
                    let answered = message::answers(&data, &request.id);
                    self.pass(request, data, standing, lines).await;
                    if answered {
                        return Ok(());
                    }
                }
                Ok(None) | Err(Trouble::BrokenOff) => {
                    let place = events.place().clone();
                    if place.last_id != seen {
                        seen.clone_from(&place.last_id);
                        tries = 0;
                    }
                    tries += 1;
                    if place.last_id.is_none() || tries > RESUMPTIONS {
                        return Err(Trouble::BrokenOff);
                    }
                    sleep(place.retry).await;
                    let call = Call::Listen(place.last_id.clone());
                    let response = self.send_as(&call, standing).await?;
                    if !response.status().is_success() || !is_of_type(&response, "text/event-stream") {
                        return Err(Trouble::BrokenOff);
                    }
                    events = EventStream::new(response, limit, place);
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Passes on a message. What the answer to a handshake says is known before the bridge hears of it, since its next message may
    /// follow at once.
    async fn pass(&self, request: &Request, message: Vec<u8>, standing: &Standing, lines: &mpsc::Sender<Bytes>) {
        if request.handshake
            && message::answers(&message, &request.id)
            && let Some(version) = message::negotiated(&message)
        {
            self.adopt(standing.session.clone(), &version);
        }
        // Fails only when the bridge has hung up, and then nobody waits.
        let _ = lines.send(message::line(message)).await;
    }
}
