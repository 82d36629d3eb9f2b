//! `broker`'s readiness probe of the store, by `oauth`.

use broker::ports::{BoxFuture, PortError, Probe};
use oauth::sqlite::WriteProbe;

#[derive(Clone, Debug)]
pub(crate) struct StoreProbe(pub(crate) WriteProbe);

impl Probe for StoreProbe {
    fn name(&self) -> &'static str {
        "store"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async { Ok(self.0.check().await?) })
    }
}
