//! `session`'s records, sealed by the key that seals `oauth`'s accounts.

use oauth::seal::Sealer;
use session::ports::{BoxError, Seal, SessionKey};

#[derive(Clone, Debug)]
pub(crate) struct SessionSeal(pub(crate) Sealer);

/// Binds a sealed record to its kind.
const KIND: &str = "session";

impl Seal for SessionSeal {
    fn seal(&self, key: SessionKey, plain: &[u8]) -> Vec<u8> {
        self.0.seal_record(KIND, &key.0, plain)
    }

    fn open(&self, key: SessionKey, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(self.0.open_record(KIND, &key.0, sealed)?)
    }
}
