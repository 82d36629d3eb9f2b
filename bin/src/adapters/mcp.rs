//! `broker`'s MCP service by `session`'s registry.

use std::sync::Arc;

use broker::ports::{BoxFuture, LogSpan, McpService, ResponseBody};
use bytes::Bytes;
use http::{Request, Response, header::WWW_AUTHENTICATE};
use oauth::AuthorizationServer;
use session::{Registry, SignInRequired, ports::SessionSpan};

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
