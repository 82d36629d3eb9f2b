//! What readers have taken off their streams and have not written yet.
//!
//! A client that does not read its answers leaves them in the hands of whoever writes them. They are counted until the writer drops
//! them, so that memory is bounded whoever holds it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// The count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lent(Arc<AtomicUsize>);

/// Bytes that are counted until they are dropped.
struct Counted {
    bytes: Bytes,
    lent: Lent,
}

impl Lent {
    /// The same bytes, counted as long as they or a part of them are held.
    pub(crate) fn lend(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        let lent = self.clone();
        Bytes::from_owner(Counted { bytes, lent })
    }

    /// How many bytes are lent.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.lent.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_as_long_as_a_part_of_them_is_held() {
        let lent = Lent::default();
        let mut one = lent.lend("abc".into());
        let two = lent.lend("de".into());
        assert_eq!((lent.bytes(), &one[..], &two[..]), (5, &b"abc"[..], &b"de"[..]));
        let part = one.split_to(1);
        drop((one, two));
        assert_eq!(lent.bytes(), 3);
        drop(part);
        assert_eq!(lent.bytes(), 0);
    }
}
