//! How a file of a given length is cut into chunks and blocks. Both sides compute it; it is never
//! sent.

use serde::Serialize;

use crate::limits::{BLOCK_LEN, CHUNK_LEN_MIN, CHUNK_LEN_SOFT_MAX, CHUNKS_MAX, CHUNKS_TARGET};

/// The chunks of a file of one length.
///
/// The chunk length is `max(clamp(npo2(ceil(len / 4096)), 256 KiB, 2 MiB), npo2(ceil(len / 2^19)))`
/// where `npo2` is the next power of two: a file has at most 2^19 chunks, and a small file few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    len: u64,
    chunk_len: u64,
    chunk_count: u32,
}

/// The number of a chunk that exists. Only a [`Geometry`] makes one, so a number from the network
/// is checked once and cannot be out of range later (for that geometry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChunkIndex(u32);

/// Where the bytes of a chunk lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSpan {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes; only the last chunk is shorter than the chunk length.
    pub len: u32,
}

impl ChunkIndex {
    /// The number, from 0.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number as an index of slices.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl Geometry {
    /// The geometry of a file of `len` bytes. A length from outside must be checked first: beyond
    /// [`FILE_LEN_MAX`](crate::limits::FILE_LEN_MAX) chunks are longer than 64 MiB.
    pub fn new(len: u64) -> Self {
        let usual = len.div_ceil(CHUNKS_TARGET).max(1).next_power_of_two().clamp(CHUNK_LEN_MIN, CHUNK_LEN_SOFT_MAX);
        let huge = len.div_ceil(CHUNKS_MAX).max(1).checked_next_power_of_two().unwrap_or(1 << 63);
        let chunk_len = usual.max(huge);
        Geometry { len, chunk_len, chunk_count: len.div_ceil(chunk_len) as u32 }
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no bytes, and so no chunk.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Length in bytes of every chunk but the last.
    pub fn chunk_len(&self) -> u64 {
        self.chunk_len
    }

    /// Number of chunks; 0 for the empty file.
    pub fn chunk_count(&self) -> u32 {
        self.chunk_count
    }

    /// Height of the tree below a chunk digest: a full chunk has `2^height` blocks.
    pub fn chunk_height(&self) -> u32 {
        (self.chunk_len / BLOCK_LEN as u64).trailing_zeros()
    }

    /// Whether chunks are checked against a layer. A file of at most one chunk needs none: its root
    /// is the digest of that chunk.
    pub fn needs_layer(&self) -> bool {
        self.chunk_count > 1
    }

    /// The chunk of number `index`, if the file has it.
    pub fn chunk(&self, index: u32) -> Option<ChunkIndex> {
        (index < self.chunk_count).then_some(ChunkIndex(index))
    }

    /// All chunks in order.
    pub fn chunks(&self) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator + use<> {
        (0..self.chunk_count).map(ChunkIndex)
    }

    /// The bytes of chunk `index`, which must be of this geometry (its span is empty otherwise).
    pub fn span(&self, index: ChunkIndex) -> ChunkSpan {
        let offset = (index.0 as u64).saturating_mul(self.chunk_len).min(self.len);
        ChunkSpan { offset, len: (self.len - offset).min(self.chunk_len) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{FILE_LEN_MAX, MIB};

    #[test]
    fn chunk_lengths_at_the_corners() {
        let mib = MIB as u64;
        for (len, chunk_len, count) in [
            (0, 256 << 10, 0),
            (1, 256 << 10, 1),
            (256 << 10, 256 << 10, 1),
            ((256 << 10) + 1, 256 << 10, 2),
            (1 << 30, 256 << 10, 4096),
            ((1 << 30) + 1, 512 << 10, 2049),
            (8 << 30, 2 * mib, 4096),
            (1 << 40, 2 * mib, 1 << 19),
            ((1 << 40) + 1, 4 * mib, (1 << 18) + 1),
            (FILE_LEN_MAX, 64 * mib, 1 << 19),
        ] {
            let g = Geometry::new(len);
            assert_eq!((g.chunk_len(), g.chunk_count()), (chunk_len, count), "length {len}");
        }
        assert!(Geometry::new(u64::MAX).chunk_count() <= CHUNKS_MAX as u32);
    }

    #[test]
    fn spans_cover_the_file_without_gaps() {
        for len in [0, 1, 262_143, 262_144, 262_145, 5 * MIB as u64 + 7] {
            let g = Geometry::new(len);
            let mut end = 0;
            for c in g.chunks() {
                let s = g.span(c);
                assert_eq!(s.offset, end);
                assert!(s.len > 0);
                end += s.len as u64;
            }
            assert_eq!(end, len);
            assert_eq!(g.chunk(g.chunk_count()), None);
        }
    }
}
