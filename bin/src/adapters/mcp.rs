//! `broker`'s MCP service and `oauth`'s grant events, by `session`'s registry.

use std::sync::{Arc, OnceLock};

use broker::ports::{BoxFuture, LogSpan, McpService, ResponseBody};
use bytes::Bytes;
use http::{Request, Response, header::WWW_AUTHENTICATE};
use oauth::{
    AuthorizationServer,
    ids::{GrantId, UserId},
    ports::GrantEvents,
};
use session::{Registry, SignInRequired, ports::SessionSpan};

use super::authority::{grant_id, user_id};

/// The registry as the MCP service of the HTTP layer.
#[derive(Clone, Debug)]
pub(crate) struct RegistryService {
    registry: Arc<Registry>,
    server: AuthorizationServer,
}

/// Ends the sessions of a grant when the grant ends, and rotates those of a user who signs in
/// again.
///
/// The authorization server is built before the registry, whose callers come from it: the registry
/// is set later.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionEvents {
    /// Set once, before serving.
    registry: Arc<OnceLock<Arc<Registry>>>,
}

impl RegistryService {
    /// A service of this registry; the authorization server makes the sign-in challenge.
    pub(crate) fn new(registry: Arc<Registry>, server: AuthorizationServer) -> Self {
        Self { registry, server }
    }
}

impl McpService for RegistryService {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(async move {
            let mut response = self.registry.serve(request).await;
            if let Some(SessionSpan(span)) = response.extensions_mut().remove() {
                response.extensions_mut().insert(LogSpan(span));
            }
            if response.extensions().get::<SignInRequired>().is_some()
                && let Some(challenge) = self.server.challenge()
            {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.registry.stop())
    }
}

impl SessionEvents {
    /// Sets the registry. Only the first call counts.
    pub(crate) fn set_registry(&self, registry: Arc<Registry>) {
        if self.registry.set(registry).is_err() {
            tracing::debug!("the registry is set already");
        }
    }
}

impl GrantEvents for SessionEvents {
    fn grant_ended(&self, grant: &GrantId) {
        if let Some(registry) = self.registry.get() {
            // The call ends the sessions; the future would only wait for their children.
            drop(registry.end_grant(&grant_id(grant)));
        }
    }

    fn user_ended(&self, user: UserId) {
        if let Some(registry) = self.registry.get() {
            drop(registry.end_user(&user_id(user)));
        }
    }

    fn user_signed_in(&self, user: UserId) {
        if let Some(registry) = self.registry.get() {
            registry.rotate_user(&user_id(user));
        }
    }

    fn sessions(&self, grant: &GrantId) -> usize {
        self.registry
            .get()
            .map_or(0, |registry| registry.sessions_of_grant(&grant_id(grant)))
    }
}
