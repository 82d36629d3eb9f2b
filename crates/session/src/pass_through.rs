//! The conversation over a [`Spawner`]: each exchange goes to one backend as it is.
//!
//! A pass-through conversation knows the method of an HTTP request and no more. What a client holds
//! on to ends with its backend: streams that listen end when their backend is replaced, and a
//! request that a dead backend may have read is answered by that backend. Only a request that it
//! cannot have read goes to the next one.
//!
//! In flight on a server are the POST exchanges whose response bodies have not been dropped, and
//! what [`Backend::busy`](crate::ports::Backend::busy) counts. A listening stream is not: it shows
//! that the client is there, not that it will come back. On a dormant session it starts no backend
//! but is parked: kept open with comments, until the session has a server.

mod conversation;
mod server;
mod state;
mod streams;

use std::{sync::Arc, time::Duration};

use self::conversation::PassThroughConversation;
use crate::ports::{BoxError, Conversation, ConversationInfo, Host, SessionHandle, Snapshot, Spawner};

/// The [`Host`] over a [`Spawner`].
#[derive(Clone, Debug)]
pub struct PassThrough {
    spawner: Arc<dyn Spawner>,
    keep_alive: Duration,
}

impl PassThrough {
    /// Parked streams get a comment each `keep_alive`.
    #[must_use]
    pub fn new(spawner: Arc<dyn Spawner>, keep_alive: Duration) -> Self {
        Self { spawner, keep_alive }
    }
}

impl Host for PassThrough {
    fn conversation(
        &self,
        _info: ConversationInfo,
        handle: SessionHandle,
        snapshot: Option<Snapshot>,
    ) -> Result<Arc<dyn Conversation>, BoxError> {
        let spawner = Arc::clone(&self.spawner);
        Ok(Arc::new(PassThroughConversation::new(
            spawner,
            self.keep_alive,
            handle,
            snapshot,
        )))
    }

    fn renews_credentials(&self) -> bool {
        self.spawner.renews_credentials()
    }
}
