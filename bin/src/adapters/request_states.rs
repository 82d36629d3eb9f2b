//! `bridge`'s request states, sealed by the key that seals `oauth`'s accounts.

use std::time::{Duration, SystemTime};

use bridge::StateSealer;
use oauth::{
    ports::{Clock as _, SystemClock},
    seal::Sealer,
};

#[derive(Clone, Debug)]
pub(crate) struct RequestStateSeal(pub(crate) Sealer);

/// Binds a sealed record to its kind.
const KIND: &str = "request state";

impl RequestStateSeal {
    fn open_at(&self, now: SystemTime, principal: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let plain = self.0.open_record(KIND, principal.as_bytes(), sealed).ok()?;
        let (&expiry, plain) = plain.split_first_chunk()?;
        (unix_seconds(now) <= u64::from_be_bytes(expiry)).then(|| plain.to_vec())
    }

    fn seal_at(&self, now: SystemTime, principal: &str, plain: &[u8], life: Duration) -> Vec<u8> {
        let expiry = unix_seconds(now + life).to_be_bytes();
        self.0
            .seal_record(KIND, principal.as_bytes(), &[&expiry, plain].concat())
    }
}

impl StateSealer for RequestStateSeal {
    fn seal(&self, principal: &str, plain: &[u8], life: Duration) -> Vec<u8> {
        self.seal_at(SystemClock.now(), principal, plain, life)
    }

    fn open(&self, principal: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_at(SystemClock.now(), principal, sealed)
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_opens_for_its_principal_until_it_expires() {
        let seal = RequestStateSeal(Sealer::with_key([7; 32]));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let sealed = seal.seal_at(now, "grant", b"state", Duration::from_secs(60));
        let open = |after, principal, sealed: &[u8]| seal.open_at(now + Duration::from_secs(after), principal, sealed);
        assert_eq!(open(60, "grant", &sealed).as_deref(), Some(&b"state"[..]));
        assert_eq!(open(61, "grant", &sealed), None);
        assert_eq!(open(0, "other", &sealed), None);
        assert_eq!(open(0, "grant", &[&sealed[..], b"x"].concat()), None);
    }
}
