//! The public type of the crate: the client's side of one session, and the links to its servers.

use std::{fmt, future::Future, sync::Arc};
#[cfg(feature = "http")]
use std::{mem, sync::atomic::Ordering};

use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Instrument;

#[cfg(feature = "http")]
use crate::link::http::{Endpoint, TokenSource, task as http_task};
use crate::{
    config::Config,
    error::{ConnectError, Refusal},
    exchange::{self, Outcome},
    link::{Link, LinkTask, era::ServerEra, inbox::Inbox, task as stream_task, translation::Translation},
    machine::{Snapshot, StateMachine},
    owner::Owner,
    shared::{self, Shared},
};

/// The client's side of one session, as long as the session: streams, requests in flight of both
/// sides, settings. Servers come and go as [`Link`]s.
///
/// All methods take `&self` and may run concurrently. Links are named by numbers that the owner
/// assigns: from 1, each greater than those before. Must be made within a tokio runtime. Dropping
/// it closes it.
pub struct Conversation {
    config: Config,
    shared: Arc<Shared>,
    _timers: DropGuard,
}

/// The error of a conversation that was dropped.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
struct Ended;

impl Conversation {
    /// The conversation of a session with the short name `tag`, which is part of the ids of
    /// questions, for requests of one principal. With a snapshot, it goes on where an earlier
    /// instance has ended.
    #[must_use]
    pub fn new(config: Config, tag: &str, principal: &str, owner: Arc<dyn Owner>, snapshot: Option<&Snapshot>) -> Self {
        let config = config.bounded();
        let machine = StateMachine::new(config.clone(), tag, principal, snapshot);
        let shared = Shared::new(machine, owner);
        let ended = CancellationToken::new();
        // It ends with the conversation; nothing waits for it.
        let timers = shared::run_timers(Arc::downgrade(&shared), ended.clone());
        TaskTracker::new().spawn(timers.in_current_span());
        Self {
            config,
            shared,
            _timers: ended.drop_guard(),
        }
    }

    /// Serves one HTTP exchange of the session: a POST with a message, a GET that listens or
    /// resumes, or the DELETE that ends the session.
    ///
    /// A request waits for a server if there is none. Silence never turns the answer to
    /// `initialize` into an event stream, nor one that waits for a server.
    ///
    /// Dropping the future or the body cancels nothing at a server. A client that has an event id
    /// can resume with `Last-Event-ID`; otherwise the response is dropped, and a request that no
    /// server has yet is given up.
    pub async fn serve(&self, request: Request<Bytes>) -> Outcome {
        exchange::serve(&self.shared, &self.config, request).await
    }

    /// Connects to a server over its output and input, such as a child's stdout and stdin.
    ///
    /// The handshake is replayed if there is one; the client's settings follow when the link is
    /// [attached](Self::attach). Without a handshake the method returns at once: the client's own
    /// `initialize` will be the handshake. A server of the modern era is asked what it is instead,
    /// and everything is translated. Dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// After the io has been dropped. After [`ConnectError::Ended`] and [`ConnectError::TimedOut`]
    /// another server may succeed; after [`ConnectError::Refused`], [`ConnectError::Unusable`],
    /// [`ConnectError::VersionChanged`] and [`ConnectError::CapabilityMissing`] another server of
    /// the same kind will not.
    pub async fn connect<I>(&self, number: u64, io: I, era: ServerEra) -> Result<Link, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (link, task) = self.start_link(number)?;
        let translation = match era {
            ServerEra::Legacy => None,
            ServerEra::Modern => Some(Translation::new(&task, &link.era_refused)),
        };
        link.tasks
            .spawn(stream_task::run(task, io, translation).in_current_span());
        self.handshake(number, link).await
    }

    /// Connects to a server over Streamable HTTP, with the current token of the user on each
    /// request.
    ///
    /// As [`connect`](Self::connect) otherwise. The server is asked for its era if that is neither
    /// given nor known, and again if it turns out to be of another one. When the link ends, so does
    /// its session at the server, within
    /// [`EndpointConfig::stop_grace`](crate::http::EndpointConfig::stop_grace).
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect). A server that cannot be reached, or that does not accept
    /// the user, has [`Ended`](ConnectError::Ended).
    #[cfg(feature = "http")]
    pub async fn connect_http(
        &self,
        number: u64,
        endpoint: Arc<Endpoint>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Link, ConnectError> {
        let mut repeated = false;
        loop {
            let (link, task) = self.start_link(number)?;
            let era_refused = Arc::clone(&link.era_refused);
            let (endpoint, tokens) = (Arc::clone(&endpoint), Arc::clone(&tokens));
            let run = http_task::run(task, endpoint, tokens, Arc::clone(&era_refused));
            link.tasks.spawn(run.in_current_span());
            let connected = self.handshake(number, link).await;
            let again = connected.is_err() && era_refused.load(Ordering::Relaxed);
            if !again || mem::replace(&mut repeated, true) {
                return connected;
            }
        }
    }

    /// Makes a link the current one, and retires the one before, which finishes what runs on it.
    /// The server gets the client's settings and then the requests that have waited. Nothing
    /// happens if a newer link was attached before.
    pub fn attach(&self, number: u64) {
        self.shared
            .step_for_owner(|machine| machine.attach(Instant::now(), number));
    }

    /// Ends all requests that wait for a server. Those without an open event stream end with
    /// [`Outcome::Unserved`].
    pub fn refuse(&self, why: &Refusal) {
        self.shared
            .step_for_owner(|machine| machine.refuse(Instant::now(), why));
    }

    /// Retires the current link if nothing is in flight on it. False if something is.
    #[must_use]
    pub fn retire_if_idle(&self, number: u64) -> bool {
        self.shared.step_for_owner(|machine| machine.retire_if_idle(number))
    }

    /// Retires the current link. What runs on it goes on until the link ends.
    pub fn detach(&self, number: u64) {
        self.shared.step_for_owner(|machine| machine.detach(number));
    }

    /// The number of calls, questions and tasks in flight on a link.
    #[must_use]
    pub fn in_flight(&self, number: u64) -> usize {
        self.shared.step_for_owner(|machine| machine.in_flight(number))
    }

    /// Resolves when nothing is in flight on a link. Cancel safe.
    pub fn drained(&self, number: u64) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                // Before the check, so that a change in between is not missed.
                let progress = shared.progress.notified();
                if shared.step(|machine| machine.in_flight(number)) == 0 {
                    return;
                }
                progress.await;
            }
        }
    }

    /// Grows when the [`snapshot`](Self::snapshot) changes.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.step_for_owner(|machine| machine.handshake.revision())
    }

    /// The state that a later instance needs; `None` before the handshake has a result.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.shared.step_for_owner(|machine| machine.snapshot())
    }

    /// True if an instance made from the snapshot would be no different.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.shared.step_for_owner(|machine| machine.is_blank())
    }

    /// Ends the conversation with its session: everything that waits ends, and so do the streams.
    pub fn close(&self, why: &Refusal) {
        self.shared.step_for_owner(|machine| machine.close(Instant::now(), why));
    }

    fn start_link(&self, number: u64) -> Result<(Link, LinkTask), ConnectError> {
        let started = self.shared.step(|machine| {
            machine
                .start_link(number)
                .then(|| {
                    machine
                        .links
                        .get(number)
                        .map(|entry| (Arc::clone(&entry.answered), Arc::clone(&entry.output)))
                })
                .flatten()
        });
        let (answered, output) = started.ok_or(ConnectError::Ended)?;
        let (closing, done, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let task = LinkTask {
            inbox: Inbox {
                number,
                shared: Arc::clone(&self.shared),
                config: self.config.clone(),
            },
            output,
            closing: closing.clone(),
            done: done.clone(),
        };
        let link = Link {
            tasks,
            done,
            closing: closing.drop_guard(),
            answered,
            era_refused: Arc::default(),
        };
        Ok((link, task))
    }

    /// Waits for the outcome of the replayed handshake.
    async fn handshake(&self, number: u64, link: Link) -> Result<Link, ConnectError> {
        link.tasks.close();
        let replayed = async {
            loop {
                // Before the check, so that a change in between is not missed.
                let progress = self.shared.progress.notified();
                if let Some(outcome) = self.shared.step(|machine| machine.replayed(number)) {
                    return outcome;
                }
                progress.await;
            }
        };
        match timeout(self.config.handshake_timeout, replayed).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(error)) => {
                link.close().await;
                Err(error)
            }
            Err(_elapsed) => {
                link.close().await;
                Err(ConnectError::TimedOut)
            }
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let ended: Refusal = Arc::new(Ended);
        self.close(&ended);
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}
