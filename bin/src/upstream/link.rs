//! One session's link to the shared server: whose token goes with its messages, and by what the server knows it.
//!
//! The token is asked for with each message, so a renewal needs nothing here. Two refusals are dealt with before anybody hears of them: a
//! token that is not accepted is renewed, once for a message and at most once a minute for a session, so that a server which refuses
//! everything does not cost a renewal each time; and a session that is not known any more (404, MCP 2025-11-25, transports, "Session
//! Management") is opened anew from the bridge's record. In both cases the server has not acted on the message, so it is sent again.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use bridge::{Bridge, ConnectError};
use http::{HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use session::ports::{Credential, Credentials};
use tokio::{
    io::duplex,
    sync::{Mutex as AsyncMutex, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    carrier::carry,
    endpoint::{Call, Endpoint, Standing},
    trouble::Trouble,
};

/// What fits into the byte stream between a bridge and its link.
pub const PIPE: usize = 64 * 1024;

/// How long after a renewal a refusal is not met with another one.
const BETWEEN_RENEWALS: Duration = Duration::from_secs(60);

/// A session as the shared server sees it.
pub struct Link {
    pub(super) endpoint: Arc<Endpoint>,
    credentials: Arc<dyn Credentials>,
    config: bridge::Config,
    /// Names the session in logs.
    pub(super) tag: Arc<str>,
    /// Changes as a whole: an id and the version that was negotiated with it.
    standing: Mutex<Standing>,
    /// The token that was sent last, for the goodbye alone: nothing is renewed to say that.
    last_token: Mutex<Option<SecretString>>,
    /// When a refused token was last renewed.
    renewed: Mutex<Option<Instant>>,
    /// The bridge over this link, which has the record of the handshake. Set once the handshake has been replayed, or at once
    /// if there was none; never on a link that only replays.
    bridge: OnceLock<Weak<Bridge>>,
    /// Held by the one that opens the session anew.
    reopening: AsyncMutex<()>,
}

impl Link {
    /// A link of a session that the server does not know yet.
    #[must_use]
    pub fn new(
        endpoint: Arc<Endpoint>,
        credentials: Arc<dyn Credentials>,
        config: bridge::Config,
        tag: Arc<str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            credentials,
            config,
            tag,
            standing: Mutex::default(),
            last_token: Mutex::default(),
            renewed: Mutex::default(),
            bridge: OnceLock::new(),
            reopening: AsyncMutex::default(),
        })
    }

    /// Names the bridge over this link. Only the first call counts.
    pub fn serves(&self, bridge: &Arc<Bridge>) {
        // A second bridge over one link cannot be: its byte stream has one other end.
        let _ = self.bridge.set(Arc::downgrade(bridge));
    }

    /// Sends a message of a session that is open, or a wish to listen. The answer comes with how the session stood for it.
    ///
    /// # Errors
    ///
    /// Any [`Trouble`] but those of an answer's body. The answer may have any status.
    pub(super) async fn send(&self, call: &Call) -> Result<(reqwest::Response, Standing), Trouble> {
        let mut reopened = false;
        loop {
            let standing = self.standing().clone();
            let response = self.send_as(call, &standing).await?;
            let forgotten = response.status() == StatusCode::NOT_FOUND && standing.session.is_some();
            if !forgotten || std::mem::replace(&mut reopened, true) {
                return Ok((response, standing));
            }
            self.reopen(&standing).await?;
        }
    }

    /// Sends a message as what it is, without opening the session anew: for the handshake, and for what only the session of
    /// before can answer.
    ///
    /// # Errors
    ///
    /// As for [`Link::send`].
    pub(super) async fn send_as(&self, call: &Call, standing: &Standing) -> Result<reqwest::Response, Trouble> {
        let mut credential = self.credentials.current().await?;
        let mut renewed = false;
        loop {
            let token = &credential.access_token;
            *self.last_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
            let response = self.endpoint.send(call, standing, Some(token)).await?;
            let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if !refused || std::mem::replace(&mut renewed, true) {
                return Ok(response);
            }
            match self.another_than(&credential).await? {
                Some(another) => credential = another,
                None => return Ok(response),
            }
        }
    }

    /// Ends the session at the server, if there is one. Nobody is told if that fails: the server forgets it in its own time.
    pub(super) async fn say_goodbye(&self) {
        let standing = std::mem::take(&mut *self.standing());
        if standing.session.is_none() {
            return;
        }
        let token = self.last_token.lock().unwrap_or_else(PoisonError::into_inner).take();
        let goodbye = self.endpoint.send(&Call::Delete, &standing, token.as_ref());
        let said = timeout(self.endpoint.config.stop_grace, goodbye).await;
        if !matches!(said, Ok(Ok(_))) {
            tracing::debug!(session = %self.tag, "the server was not told that the session has ended");
        }
    }

    /// The server has granted the handshake.
    pub(super) fn adopt(&self, session: Option<HeaderValue>, version: &str) {
        let session = session.map(|mut id| {
            id.set_sensitive(true);
            id
        });
        *self.standing() = Standing {
            session,
            version: HeaderValue::from_str(version).ok(),
        };
    }

    /// Where the session stands.
    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token other than the one that was refused; `None` if it was renewed a short while ago.
    async fn another_than(&self, refused: &Credential) -> Result<Option<Credential>, Trouble> {
        let current = self.credentials.current().await?;
        if current.access_token.expose_secret() != refused.access_token.expose_secret() {
            // Another session of the user, or a new sign-in, has brought it meanwhile.
            return Ok(Some(current));
        }
        {
            let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if renewed.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_RENEWALS) {
                return Ok(None);
            }
            *renewed = Some(now);
        }
        tracing::info!(session = %self.tag, "the server refuses the user's token, which is renewed");
        Ok(Some(self.credentials.refresh().await?))
    }

    /// Opens the session anew, unless that has been done since `stale` was how it stood: a second bridge replays the record over a
    /// second link, whose standing this one takes over.
    async fn reopen(&self, stale: &Standing) -> Result<(), Trouble> {
        let _turn = self.reopening.lock().await;
        if *self.standing() != *stale {
            return Ok(());
        }
        let bridge = self.bridge.get().and_then(Weak::upgrade);
        let snapshot = bridge.and_then(|bridge| bridge.snapshot()).ok_or(Trouble::Lost(None))?;
        let fresh = Self::new(
            Arc::clone(&self.endpoint),
            Arc::clone(&self.credentials),
            self.config.clone(),
            Arc::clone(&self.tag),
        );
        let (near, far) = duplex(PIPE);
        let (_listeners, listening) = watch::channel(0);
        let closing = CancellationToken::new();
        let carrying = carry(Arc::clone(&fresh), far, listening, closing.clone());
        let replay = async {
            let replayed = Bridge::connect(near, self.config.clone(), Some(&snapshot)).await;
            // Taken before the carrier is told to end, and would say goodbye.
            let standing = replayed.is_ok().then(|| std::mem::take(&mut *fresh.standing()));
            closing.cancel();
            (replayed.map(drop), standing)
        };
        let ((replayed, standing), ()) = tokio::join!(replay, carrying);
        match (replayed, standing) {
            (Ok(()), Some(standing)) => {
                tracing::info!(session = %self.tag, "the server has forgotten the session, which was opened anew");
                *self.standing() = standing;
                Ok(())
            }
            // It may be there again in a moment: the link is kept.
            (Err(error @ (ConnectError::Ended | ConnectError::TimedOut)), _) => Err(Trouble::NotReopened(error)),
            (Err(error), _) => Err(Trouble::Lost(Some(error))),
            (Ok(()), None) => Err(Trouble::Lost(None)),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("tag", &self.tag).finish_non_exhaustive()
    }
}
