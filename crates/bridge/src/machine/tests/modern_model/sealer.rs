//! The sealer of the model, whose clock is the one of the schedule, in milliseconds.

use super::*;
use crate::StateSealer;

/// Seals with a checksum, and until a time.
#[derive(Debug)]
pub(super) struct ClockSealer(pub(super) Arc<AtomicU64>);

impl StateSealer for ClockSealer {
    fn seal(&self, principal: &str, plain: &[u8], life: Duration) -> Vec<u8> {
        let until = self.0.load(Ordering::Relaxed) + u64::try_from(life.as_millis()).expect("a short life");
        seal_until(until, principal, plain)
    }

    fn open(&self, principal: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (_, rest) = sealed.split_first_chunk::<8>()?;
        let (until, plain) = rest.split_first_chunk()?;
        let until = u64::from_be_bytes(*until);
        let valid = seal_until(until, principal, plain) == sealed && self.0.load(Ordering::Relaxed) < until;
        valid.then(|| plain.to_vec())
    }
}

fn seal_until(until: u64, principal: &str, plain: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (until, principal, plain).hash(&mut hasher);
    [&hasher.finish().to_be_bytes()[..], &until.to_be_bytes(), plain].concat()
}
