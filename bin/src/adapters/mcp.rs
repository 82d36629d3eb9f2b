//! `broker`'s MCP service by `session`'s registry.

use std::sync::Arc;

use broker::ports::{BoxFuture, McpAnswer, McpService};
use bytes::Bytes;
use http::{Request, header::WWW_AUTHENTICATE};
use oauth::AuthorizationServer;
use session::{Registry, Served};

/// The registry as the MCP service of the HTTP layer.
#[derive(Clone, Debug)]
pub(crate) struct RegistryService {
    registry: Arc<Registry>,
    server: AuthorizationServer,
}

impl RegistryService {
    /// A service of this registry; the authorization server makes the sign-in challenge.
    pub(crate) fn new(registry: Arc<Registry>, server: AuthorizationServer) -> Self {
        Self { registry, server }
    }
}

impl McpService for RegistryService {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, McpAnswer> {
        Box::pin(async move {
            let Served {
                mut response,
                session,
                sign_in_required,
            } = self.registry.serve(request).await;
            if sign_in_required && let Some(challenge) = self.server.challenge() {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            McpAnswer {
                response,
                span: session,
            }
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.registry.stop())
    }
}
