//! Numbers that a seed decides: the same seed, the same load, on every machine.

use bytes::{BufMut as _, Bytes, BytesMut};

/// `SplitMix64` (Steele, Lea, Flood, 2014): enough to vary a load; it guards nothing.
#[derive(Clone, Debug)]
pub(super) struct Seeded(u64);

impl Seeded {
    /// A source of its own for each `stream` of one seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(mixed.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `0..end`; `end` above 0. The bias of the remainder doesn't matter here.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// That many bytes that don't compress.
    pub(super) fn bytes(&mut self, length: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.put_u64_le(self.next());
        }
        bytes.truncate(length);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::Seeded;

    #[test]
    fn a_seed_decides_and_streams_differ() {
        let first = |seed, stream| Seeded::new(seed, stream).next();
        assert_eq!(first(7, 1), first(7, 1));
        assert_ne!(first(7, 1), first(7, 2));
        assert_ne!(first(7, 1), first(8, 1));
        assert_eq!(Seeded::new(1, 1).bytes(13).len(), 13);
    }
}
