//! `broker`'s readiness probe of the store, by `oauth`.

use broker::ports::{BoxError, BoxFuture, Probe};
use oauth::AuthorizationServer;

#[derive(Clone, Debug)]
pub(crate) struct StoreProbe(pub(crate) AuthorizationServer);

impl Probe for StoreProbe {
    fn name(&self) -> &'static str {
        "store"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { Ok(self.0.probe().await?) })
    }
}
