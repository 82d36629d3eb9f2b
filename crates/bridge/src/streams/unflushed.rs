//! Counts the bytes that readers have taken from their streams and not yet written.
//!
//! A client that does not read its responses leaves them with the HTTP writer. They count until the
//! writer drops them, so that their memory is bounded too.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// The count. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unflushed(Arc<AtomicUsize>);

/// Bytes that count until they are dropped.
struct Tracked {
    bytes: Bytes,
    unflushed: Unflushed,
}

impl Unflushed {
    /// Returns the same bytes, counted until the last part of them is dropped.
    pub(crate) fn track(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        let unflushed = self.clone();
        Bytes::from_owner(Tracked { bytes, unflushed })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.unflushed.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_their_last_part_is_dropped() {
        let unflushed = Unflushed::default();
        let mut one = unflushed.track("abc".into());
        let two = unflushed.track("de".into());
        assert_eq!((unflushed.bytes(), &one[..], &two[..]), (5, &b"abc"[..], &b"de"[..]));
        let part = one.split_to(1);
        drop((one, two));
        assert_eq!(unflushed.bytes(), 3);
        drop(part);
        assert_eq!(unflushed.bytes(), 0);
    }
}
