//! Recovery from the two refusals of the server: a renewed token, and a reopened session.
//!
//! Both run to their end on a task of the session even if the message is cancelled: a session that
//! is half opened would remain at the server.

use std::sync::{Arc, Weak};

use bridge::{Bridge, ConnectError};
use secrecy::ExposeSecret as _;
use session::ports::{Credential, CredentialError};
use tokio::{io::duplex, sync::watch, time::Instant};
use tracing::Instrument as _;

use super::{PIPE_CAPACITY, SharedServerSession, pump::pump};
use crate::shared_server::{endpoint::SessionHeaders, error::SharedServerError};

impl SharedServerSession {
    /// A token other than the refused one; `None` if there is none and no renewal is permitted now.
    pub(super) async fn replacement_for(
        self: &Arc<Self>,
        refused: &Credential,
    ) -> Result<Option<Credential>, SharedServerError> {
        let renewals = match self.endpoint.renewal_limiter.of(&self.user, Instant::now()) {
            Some(renewals) => Some(renewals.lock_owned().await),
            None => None,
        };
        let current = self.credentials.current().await?;
        if current.access_token.expose_secret() != refused.access_token.expose_secret() {
            // Another session of the user, or a new sign-in, has renewed it meanwhile.
            return Ok(Some(current));
        }
        let Some(mut renewals) = renewals else {
            return Ok(None);
        };
        if !renewals.begin(Instant::now()) {
            return Ok(None);
        }
        tracing::info!(session = %self.tag, "the server refuses the user's token; renewing it");
        let session = Arc::clone(self);
        let renewal = async move {
            let renewed = session.ended.run_until_cancelled(session.credentials.refresh()).await;
            // The next holder of the lock finds the new token.
            drop(renewals);
            renewed.unwrap_or_else(|| Err(CredentialError::Transient("the session has ended".into())))
        };
        match self.tasks.spawn(renewal.in_current_span()).await {
            Ok(renewed) => Ok(Some(renewed?)),
            // The task was dropped with the runtime, or panicked.
            Err(error) => Err(CredentialError::Transient(error.into()).into()),
        }
    }

    /// Opens the session again, unless its headers are no longer `stale`. Dropping the future does
    /// not undo it.
    pub(super) async fn reopen(self: &Arc<Self>, stale: &SessionHeaders) -> Result<(), SharedServerError> {
        let guard = Arc::clone(&self.reopening).lock_owned().await;
        if *self.headers() != *stale {
            return Ok(());
        }
        let session = Arc::clone(self);
        let reopening = async move {
            let _guard = guard;
            session.replay().await
        };
        let reopened = self.tasks.spawn(reopening.in_current_span()).await;
        // The task was dropped with the runtime, or panicked.
        reopened.unwrap_or(Err(SharedServerError::SessionLost(None)))
    }

    /// Replays the snapshot by a second bridge over a second session, and takes over the headers of
    /// that.
    async fn replay(&self) -> Result<(), SharedServerError> {
        let bridge = self.bridge.get().and_then(Weak::upgrade);
        let snapshot = bridge.and_then(|bridge| bridge.snapshot());
        let snapshot = snapshot.ok_or(SharedServerError::SessionLost(None))?;
        let fresh = Self::new(
            Arc::clone(&self.endpoint),
            Arc::clone(&self.credentials),
            self.user.clone(),
            self.config.clone(),
            Arc::clone(&self.tag),
        );
        let (near, far) = duplex(PIPE_CAPACITY);
        let (_listeners, no_listeners) = watch::channel(0);
        let closing = self.ended.child_token();
        let pumping = pump(Arc::clone(&fresh), far, no_listeners, closing.clone());
        let replay = async {
            let replayed = Bridge::connect(near, self.config.clone(), Some(&snapshot)).await;
            if replayed.is_ok() && snapshot.is_initialized() {
                // The bridge does not wait for it, since it has no response.
                fresh.initialized.cancelled().await;
            }
            // Taken before the pump stops, which would delete the session.
            let headers = replayed.is_ok().then(|| std::mem::take(&mut *fresh.headers()));
            closing.cancel();
            (replayed.map(drop), headers)
        };
        let ((replayed, headers), ()) = tokio::join!(replay, pumping);
        match (replayed, headers) {
            (Ok(()), Some(headers)) => {
                tracing::info!(session = %self.tag, "the server had forgotten the session; it is open again");
                *self.headers() = headers;
                Ok(())
            }
            // The server may be back in a moment: the session is kept.
            (Err(error @ (ConnectError::Ended | ConnectError::TimedOut)), _) => {
                Err(SharedServerError::NotReopened(error))
            }
            (Err(error), _) => Err(SharedServerError::SessionLost(Some(error))),
            (Ok(()), None) => Err(SharedServerError::SessionLost(None)),
        }
    }
}
