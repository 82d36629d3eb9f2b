//! `session`'s conversations by `bridge`. The servers come from a [`ServerStarter`], by the
//! configured mode.

use std::{fmt, sync::Arc};

use bridge::{Owner, Refusal};
use bytes::Bytes;
use http::{HeaderMap, Request};
use session::ports::{
    BoxError, BoxFuture, Caller, Conversation, ConversationInfo, DetachReason, Host, Outcome, Route, Server,
    ServerNumber, SessionError, SessionHandle, Snapshot, SpawnError, StartOrder,
};

/// Starts the servers of conversations, and connects them.
pub(crate) trait ServerStarter: fmt::Debug + Send + Sync + 'static {
    /// Starts a server with a link of this number. Dropping the future ends what it has begun.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    fn start<'a>(
        &'a self,
        conversation: &'a bridge::Conversation,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn Server>, SpawnError>>;

    /// As [`Host::renews_credentials`].
    fn renews_credentials(&self) -> bool {
        false
    }
}

/// Makes a conversation for each session.
#[derive(Debug)]
pub(crate) struct BridgeHost {
    pub(crate) config: bridge::Config,
    pub(crate) starter: Arc<dyn ServerStarter>,
}

#[derive(Debug)]
struct BridgeConversation {
    conversation: bridge::Conversation,
    starter: Arc<dyn ServerStarter>,
}

/// The session as the owner of its conversation.
#[derive(Debug)]
struct HandleOwner(SessionHandle);

impl Host for BridgeHost {
    fn conversation(
        &self,
        info: ConversationInfo,
        handle: SessionHandle,
        snapshot: Option<Snapshot>,
    ) -> Result<Arc<dyn Conversation>, BoxError> {
        let snapshot = snapshot.map(|snapshot| bridge::Snapshot::from_bytes(&snapshot.0));
        let mut snapshot = snapshot.transpose()?;
        if info.implicit {
            snapshot = snapshot.map(bridge::Snapshot::renegotiable);
        }
        let owner = Arc::new(HandleOwner(handle));
        Ok(Arc::new(BridgeConversation {
            conversation: bridge::Conversation::new(
                self.config.clone(),
                &info.tag,
                &info.grant.0,
                owner,
                snapshot.as_ref(),
            ),
            starter: Arc::clone(&self.starter),
        }))
    }

    fn renews_credentials(&self) -> bool {
        self.starter.renews_credentials()
    }

    fn route(&self, request: &mut Request<Bytes>, caller: &Caller) -> Route {
        route(bridge::route(request, &caller.grant.0, &self.config))
    }

    fn initial_snapshot(&self, request: &Request<Bytes>) -> Option<Snapshot> {
        let snapshot = bridge::initial_snapshot(request)?;
        Some(Snapshot(snapshot.to_bytes()))
    }

    fn ignores_session_id(&self, headers: &HeaderMap) -> bool {
        bridge::ignores_session_id(headers)
    }
}

/// The same place in the terms of the registry.
fn route(route: bridge::Destination) -> Route {
    match route {
        bridge::Destination::Open => Route::Open,
        bridge::Destination::Implicit { name } => Route::Implicit { name },
        bridge::Destination::LastInitialize { opens } => Route::LastInitialize { opens },
        bridge::Destination::Tagged { tag, otherwise } => Route::Tagged {
            tag,
            otherwise: Box::new(self::route(*otherwise)),
        },
        bridge::Destination::Reply(response) => Route::Reply(response),
    }
}

impl Conversation for BridgeConversation {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            match self.conversation.serve(request).await {
                bridge::Outcome::Answer(response) => Outcome::Answer(response),
                bridge::Outcome::Opened(response) => Outcome::Opened(response),
                bridge::Outcome::End(response) => Outcome::End(response),
                bridge::Outcome::Unserved(why) => Outcome::Unserved(session_error(&why)),
            }
        })
    }

    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Arc<dyn Server>, SpawnError>> {
        Box::pin(async move { self.starter.start(&self.conversation, order).await })
    }

    fn attach(&self, server: ServerNumber) {
        self.conversation.attach(server.0);
    }

    fn refuse(&self, why: SessionError) {
        self.conversation.refuse(&refusal(why));
    }

    fn retire_if_idle(&self, server: ServerNumber) -> bool {
        self.conversation.retire_if_idle(server.0)
    }

    fn detach(&self, server: ServerNumber, _reason: DetachReason) {
        self.conversation.detach(server.0);
    }

    fn in_flight(&self, server: ServerNumber) -> usize {
        self.conversation.in_flight(server.0)
    }

    fn drained(&self, server: ServerNumber) -> BoxFuture<'static, ()> {
        Box::pin(self.conversation.drained(server.0))
    }

    fn revision(&self) -> u64 {
        self.conversation.revision()
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.conversation
            .snapshot()
            .map(|snapshot| Snapshot(snapshot.to_bytes()))
    }

    fn is_blank(&self) -> bool {
        self.conversation.is_blank()
    }

    fn close(&self, why: SessionError) {
        self.conversation.close(&refusal(why));
    }
}

impl Owner for HandleOwner {
    fn want(&self, after: u64) {
        self.0.want(ServerNumber(after));
    }

    fn changed(&self) {
        self.0.changed();
    }

    fn touch(&self) {
        self.0.touch();
    }
}

fn refusal(why: SessionError) -> Refusal {
    Arc::new(why)
}

/// The error that a conversation was refused with.
fn session_error(why: &Refusal) -> SessionError {
    let why: &(dyn std::error::Error + Send + Sync) = why.as_ref();
    // Any other error is that of a conversation that was dropped with its session.
    why.downcast_ref().copied().unwrap_or(SessionError::Ended)
}
