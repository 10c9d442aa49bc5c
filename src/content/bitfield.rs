//! A set of chunks.

use crate::content::ChunkIndex;

/// The set of chunks of a file that a node has: one bit a chunk, most significant bit first (as in
/// BEP 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// A set of none of `len` chunks.
    pub fn empty(len: u32) -> Self {
        Bitfield { bytes: vec![0; len.div_ceil(8) as usize], len, ones: 0 }
    }

    /// A set of all `len` chunks.
    pub fn full(len: u32) -> Self {
        let mut b = Bitfield { bytes: vec![0xff; len.div_ceil(8) as usize], len, ones: len };
        if let (Some(last), 1..) = (b.bytes.last_mut(), len % 8) {
            *last = 0xffu8 << (8 - len % 8);
        }
        b
    }

    /// Reads the byte form; `None` when its size is not that of `len` bits or a spare bit is set.
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        if let (Some(last), 1..) = (bytes.last(), len % 8)
            && last << (len % 8) != 0
        {
            return None;
        }
        let ones = bytes.iter().map(|b| b.count_ones()).sum();
        Some(Bitfield { bytes: bytes.to_vec(), len, ones })
    }

    /// The byte form: `ceil(len / 8)` bytes, spare bits zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of chunks that the set may hold.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether every chunk is in the set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Number of chunks in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether `index` is in the set; false beyond its length.
    pub fn contains(&self, index: ChunkIndex) -> bool {
        self.bit(index.get())
    }

    /// Whether the bit of number `index` is set; false beyond the length.
    pub fn bit(&self, index: u32) -> bool {
        self.bytes.get((index / 8) as usize).is_some_and(|b| b & (0x80 >> (index % 8)) != 0)
    }

    /// Puts `index` in; false if it was there, or lies beyond the length.
    pub fn insert(&mut self, index: ChunkIndex) -> bool {
        let mask = 0x80 >> (index.get() % 8);
        match self.bytes.get_mut((index.get() / 8) as usize) {
            Some(b) if index.get() < self.len && *b & mask == 0 => {
                *b |= mask;
                self.ones += 1;
                true
            }
            _ => false,
        }
    }

    /// Puts all of `chunks` in.
    pub fn extend(&mut self, chunks: impl IntoIterator<Item = ChunkIndex>) {
        for chunk in chunks {
            self.insert(chunk);
        }
    }

    /// Takes `index` out; false if it was not there.
    pub fn remove(&mut self, index: ChunkIndex) -> bool {
        let mask = 0x80 >> (index.get() % 8);
        match self.bytes.get_mut((index.get() / 8) as usize) {
            Some(b) if *b & mask != 0 => {
                *b &= !mask;
                self.ones -= 1;
                true
            }
            _ => false,
        }
    }

    /// The numbers in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes
            .iter()
            .enumerate()
            .filter(|(_, b)| **b != 0)
            .flat_map(|(i, b)| (0..8u32).filter(move |bit| b & (0x80 >> bit) != 0).map(move |bit| i as u32 * 8 + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Geometry;

    #[test]
    fn sets_of_every_small_length() {
        for n in 0..40u32 {
            let g = Geometry::new(n as u64 * 256 * 1024);
            let mut b = Bitfield::empty(n);
            for c in g.chunks() {
                assert!(b.insert(c) && !b.insert(c) && b.contains(c));
            }
            assert_eq!(b, Bitfield::full(n));
            assert!(b.is_full());
            assert_eq!(Bitfield::from_bytes(b.as_bytes(), n), Some(b.clone()));
            assert_eq!(b.iter().collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
            for c in g.chunks() {
                assert!(b.remove(c) && !b.remove(c));
            }
            assert!(b.is_empty() && !b.bit(n));
        }
    }

    #[test]
    fn spare_bits_and_other_sizes_are_refused() {
        assert_eq!(Bitfield::from_bytes(&[0x01], 7), None);
        assert_eq!(Bitfield::from_bytes(&[0], 9), None);
        assert_eq!(Bitfield::from_bytes(&[0, 0], 8), None);
    }
}
