//! The registry itself: what an embedder holds.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    caps::Caps,
    config::Config,
    exchange,
    ports::{Body, GrantId, Spawner, UserId},
    reaper,
    seat::Session,
    table::{Reason, Table},
};

/// The sessions of an MCP endpoint.
///
/// Dropping it ends all sessions without waiting for their backends; [`Registry::stop`] waits.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

/// What the registry holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions that a client can use.
    pub live: usize,
    /// Sessions whose backend starts or has not yet answered the handshake.
    pub starting: usize,
    /// Sessions that have ended and whose backend is still being stopped. They count towards the caps.
    pub stopping: usize,
}

/// What the parts of the registry share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) table: Table,
    pub(crate) caps: Arc<Caps>,
    /// The keepers and the reaper.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when no new session is taken any more.
    pub(crate) closing: CancellationToken,
}

impl Registry {
    /// Makes a registry and starts its reaper on the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(config: Config, spawner: Arc<dyn Spawner>) -> Self {
        let shared = Arc::new(Shared {
            table: Table::new(config.tombstones),
            caps: Caps::new(config.max_sessions, config.max_sessions_per_user),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            spawner,
            config,
        });
        shared.tasks.spawn(reaper::run(Arc::clone(&shared)));
        Self { shared }
    }

    /// Serves one exchange at the MCP endpoint. A [`Caller`](crate::ports::Caller) has to be in the extensions of the
    /// request; without one the answer is 500 and nothing is spawned.
    ///
    /// Every answer that is not the backend's own is a JSON-RPC error with the id of the request. Dropping the future
    /// abandons the exchange; if it was opening a session, nothing is left of that.
    pub async fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        exchange::serve(&self.shared, request).await
    }

    /// Ends the sessions of a grant, those that are opening included.
    ///
    /// The call itself ends them: from then on their ids are answered with 404, and their backends are told to stop. The
    /// future only waits until the backends are gone; dropping it takes nothing back.
    pub fn end_grant(&self, grant: &GrantId) -> impl Future<Output = ()> + Send + use<> {
        all_gone(
            self.shared
                .end_where(Reason::Revoked, |session| session.caller.grant == *grant),
        )
    }

    /// Ends the sessions of all of a user's grants, as [`Registry::end_grant`] does for one.
    pub fn end_user(&self, user: &UserId) -> impl Future<Output = ()> + Send + use<> {
        all_gone(
            self.shared
                .end_where(Reason::Revoked, |session| session.caller.user == *user),
        )
    }

    /// Ends everything: new exchanges are refused (503), all backends are stopped in parallel. Returns when they are gone, or
    /// after [`Config::stop_deadline`]. Idempotent, and safe from any number of callers; dropping the future does not take the
    /// order back.
    pub async fn stop(&self) {
        self.shared.close();
        let deadline = self.shared.config.stop_deadline;
        if timeout(deadline, self.shared.tasks.wait()).await.is_err() {
            let left = self.shared.caps.taken();
            tracing::error!(left, "backends are left after the stop deadline");
        }
    }

    /// How many sessions a grant has, those that are opening included.
    #[must_use]
    pub fn sessions_of_grant(&self, grant: &GrantId) -> usize {
        self.shared.table.select(|session| session.caller.grant == *grant).len()
    }

    /// Counts what there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        // The slots first: a session that ends in between is then counted as stopping, not lost.
        let taken = self.shared.caps.taken();
        let sessions = self.shared.table.select(|_| true);
        let starting = sessions.iter().filter(|session| session.life().is_opening()).count();
        Stats {
            live: sessions.len() - starting,
            starting,
            stopping: taken.saturating_sub(sessions.len()),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// Ends what is wanted, and tells what that was.
    fn end_where(&self, reason: Reason, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let sessions = self.table.select(wanted);
        for session in &sessions {
            self.table.end(session, reason);
        }
        sessions
    }

    /// Closes the intake first, so that nothing comes in behind the sessions that are ended.
    fn close(&self) {
        self.table.close();
        self.closing.cancel();
        self.end_where(Reason::Stopping, |_| true);
        self.tasks.close();
    }
}

/// Returns when nothing is left of the backends of `sessions`.
async fn all_gone(sessions: Vec<Arc<Session>>) {
    for session in sessions {
        session.gone.cancelled().await;
    }
}
