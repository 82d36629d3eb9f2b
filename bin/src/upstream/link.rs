//! One session's link to the shared server: whose token goes with its messages, and by what the server knows it.
//!
//! The token is asked for with each message, so a renewal needs nothing here. Two refusals are dealt with before anybody hears of them: a
//! token that is not accepted (401; a 403 is about what it may do, and another token of the user may do no more) is renewed, once for a
//! message and within the bounds of `renewals`; and a session that is not known any more (404, MCP 2025-11-25, transports, "Session
//! Management") is opened anew from the bridge's record. In both cases the server has not acted on the message, so it is sent again.
//! Either runs to its end on a task of the link, though the message that wanted it is cancelled: a session that is half opened would be
//! left at the server.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bridge::{Bridge, ConnectError};
use http::{HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use session::ports::{Credential, CredentialError, Credentials, UserId};
use tokio::{
    io::duplex,
    sync::{Mutex as AsyncMutex, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{
    carrier::carry,
    endpoint::{Call, Endpoint, Standing},
    trouble::Trouble,
};

/// What fits into the byte stream between a bridge and its link.
pub const PIPE: usize = 64 * 1024;

/// A session as the shared server sees it.
pub struct Link {
    pub(super) endpoint: Arc<Endpoint>,
    credentials: Arc<dyn Credentials>,
    user: UserId,
    config: bridge::Config,
    /// Names the session in logs.
    pub(super) tag: Arc<str>,
    /// Changes as a whole: an id and the version that was negotiated with it.
    standing: Mutex<Standing>,
    /// The token that was sent last, for the goodbye alone: nothing is renewed to say that.
    last_token: Mutex<Option<SecretString>>,
    /// The bridge over this link, which has the record of the handshake. Set once the handshake has been replayed, or at once
    /// if there was none; never on a link that only replays.
    bridge: OnceLock<Weak<Bridge>>,
    /// Held by the one that opens the session anew.
    reopening: Arc<AsyncMutex<()>>,
    /// Renewals and openings that are under way. Waited for before the goodbye.
    tasks: TaskTracker,
    /// Cancelled once nothing more is carried: whatever is under way is to end.
    ended: CancellationToken,
    /// Cancelled once the server has heard `notifications/initialized`, or never will.
    pub(super) confirmed: CancellationToken,
}

impl Link {
    /// A link of a session that the server does not know yet.
    #[must_use]
    pub fn new(
        endpoint: Arc<Endpoint>,
        credentials: Arc<dyn Credentials>,
        user: UserId,
        config: bridge::Config,
        tag: Arc<str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            credentials,
            user,
            config,
            tag,
            standing: Mutex::default(),
            last_token: Mutex::default(),
            bridge: OnceLock::new(),
            reopening: Arc::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            confirmed: CancellationToken::new(),
        })
    }

    /// Names the bridge over this link. Only the first call counts.
    pub fn serves(&self, bridge: &Arc<Bridge>) {
        // A second bridge over one link cannot be: its byte stream has one other end.
        let _ = self.bridge.set(Arc::downgrade(bridge));
    }

    /// Sends a message of a session that is open, or a wish to listen, which may depend on how the session stands. The answer comes with
    /// how it stood.
    ///
    /// # Errors
    ///
    /// Any [`Trouble`] but those of an answer's body. The answer may have any status.
    pub(super) async fn send(
        self: &Arc<Self>,
        call: impl Fn(&Standing) -> Call,
    ) -> Result<(reqwest::Response, Standing), Trouble> {
        let mut reopened = false;
        loop {
            let standing = self.standing().clone();
            let response = self.send_as(&call(&standing), &standing).await?;
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
    pub(super) async fn send_as(
        self: &Arc<Self>,
        call: &Call,
        standing: &Standing,
    ) -> Result<reqwest::Response, Trouble> {
        let mut credential = self.credentials.current().await?;
        let mut renewed = false;
        loop {
            let token = &credential.access_token;
            *self.last_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
            let response = self.endpoint.send(call, standing, Some(token)).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || std::mem::replace(&mut renewed, true) {
                return Ok(response);
            }
            match self.another_than(&credential).await? {
                Some(another) => credential = another,
                None => return Ok(response),
            }
        }
    }

    /// Ends what is under way, and then the session at the server. Nothing is to be carried any more.
    pub(super) async fn end(&self) {
        self.ended.cancel();
        self.confirmed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.say_goodbye().await;
    }

    /// Ends the session at the server, if there is one. Nobody is told if that fails: the server forgets it in its own time.
    async fn say_goodbye(&self) {
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

    /// A token other than the one that was refused; `None` if there is none, and may be no renewal now.
    async fn another_than(self: &Arc<Self>, refused: &Credential) -> Result<Option<Credential>, Trouble> {
        let turn = match self.endpoint.renewals.of(&self.user, Instant::now()) {
            Some(turn) => Some(turn.lock_owned().await),
            None => None,
        };
        let current = self.credentials.current().await?;
        if current.access_token.expose_secret() != refused.access_token.expose_secret() {
            // Another session of the user, or a new sign-in, has brought it meanwhile.
            return Ok(Some(current));
        }
        let Some(mut turn) = turn else {
            return Ok(None);
        };
        if !turn.take(Instant::now()) {
            return Ok(None);
        }
        tracing::info!(session = %self.tag, "the server refuses the user's token, which is renewed");
        let link = Arc::clone(self);
        let renewal = async move {
            let renewed = link.ended.run_until_cancelled(link.credentials.refresh()).await;
            // Whoever waits for the turn finds the new token.
            drop(turn);
            renewed.unwrap_or_else(|| Err(CredentialError::Transient("the session has ended".into())))
        };
        match self.tasks.spawn(renewal.in_current_span()).await {
            Ok(renewed) => Ok(Some(renewed?)),
            // The task was dropped with the runtime, or panicked.
            Err(error) => Err(CredentialError::Transient(error.into()).into()),
        }
    }

    /// Opens the session anew, unless that has been done since `stale` was how it stood. Dropping the future does not take it back.
    async fn reopen(self: &Arc<Self>, stale: &Standing) -> Result<(), Trouble> {
        let turn = Arc::clone(&self.reopening).lock_owned().await;
        if *self.standing() != *stale {
            return Ok(());
        }
        let link = Arc::clone(self);
        let opening = async move {
            let _turn = turn;
            link.open_anew().await
        };
        let opened = self.tasks.spawn(opening.in_current_span()).await;
        // The task was dropped with the runtime, or panicked.
        opened.unwrap_or(Err(Trouble::Lost(None)))
    }

    /// A second bridge replays the record over a second link, whose standing this one takes over.
    async fn open_anew(&self) -> Result<(), Trouble> {
        let bridge = self.bridge.get().and_then(Weak::upgrade);
        let snapshot = bridge.and_then(|bridge| bridge.snapshot()).ok_or(Trouble::Lost(None))?;
        let fresh = Self::new(
            Arc::clone(&self.endpoint),
            Arc::clone(&self.credentials),
            self.user.clone(),
            self.config.clone(),
            Arc::clone(&self.tag),
        );
        let (near, far) = duplex(PIPE);
        let (_listeners, listening) = watch::channel(0);
        let closing = self.ended.child_token();
        let carrying = carry(Arc::clone(&fresh), far, listening, closing.clone());
        let replay = async {
            let replayed = Bridge::connect(near, self.config.clone(), Some(&snapshot)).await;
            if replayed.is_ok() && snapshot.is_initialized() {
                // The bridge does not wait for it, since nobody answers.
                fresh.confirmed.cancelled().await;
            }
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
