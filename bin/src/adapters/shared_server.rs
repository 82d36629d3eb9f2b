//! `session`'s servers as sessions at one shared server, each with a link of its conversation.
//!
//! No process is started, and no server is bound to a token: each message takes the current token
//! of its user. A renewal or a new sign-in therefore replaces no server, and a server reports no
//! expiry.

mod renewal_limiter;
mod tokens;

use std::sync::Arc;

use bridge::{ConnectError, Conversation, Link, http::Endpoint};
use session::ports::{BoxFuture, Server, SpawnError, StartOrder};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::renewal_limiter::RenewalLimiter;
use self::tokens::UserTokens;
use super::{conversation::ServerStarter, credentials};

/// Opens a session at the shared server for each session of the broker.
#[derive(Debug)]
pub(crate) struct SharedServerStarter {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) renewal_limiter: Arc<RenewalLimiter>,
    /// The renewals in progress.
    pub(crate) tasks: TaskTracker,
}

/// A session at the server.
#[derive(Debug)]
struct SharedServer(Link);

impl SharedServerStarter {
    async fn open(&self, conversation: &Conversation, order: StartOrder) -> Result<Arc<dyn Server>, SpawnError> {
        let caller = &order.caller;
        // A user who has to sign in again gets the error now, not with a later request.
        caller.credentials.current().await.map_err(credentials::spawn_error)?;
        let tokens = UserTokens {
            user: caller.user.clone(),
            credentials: Arc::clone(&caller.credentials),
            renewal_limiter: Arc::clone(&self.renewal_limiter),
            tasks: self.tasks.clone(),
        };
        let link = conversation.connect_http(order.number.0, Arc::clone(&self.endpoint), Arc::new(tokens));
        Ok(Arc::new(SharedServer(link.await.map_err(not_connected)?)))
    }
}

impl ServerStarter for SharedServerStarter {
    fn start<'a>(
        &'a self,
        conversation: &'a Conversation,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn Server>, SpawnError>> {
        Box::pin(self.open(conversation, order))
    }

    fn renews_credentials(&self) -> bool {
        true
    }
}

impl Server for SharedServer {
    fn done(&self) -> CancellationToken {
        self.0.done()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }

    fn has_answered(&self) -> bool {
        self.0.has_answered()
    }
}

fn not_connected(error: ConnectError) -> SpawnError {
    let kind = if error.is_final() {
        SpawnError::Unfit
    } else if matches!(error, ConnectError::Ended) {
        SpawnError::Failed
    } else {
        SpawnError::NotReady
    };
    kind(error.into())
}
