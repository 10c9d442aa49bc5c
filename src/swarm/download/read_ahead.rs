//! How much is fetched ahead of a reader.
//!
//! As the read-ahead of Linux does: little after a jump, of which the next read may be another one,
//! and twice as much with each chunk that is read after the one before, so that a sequential reader
//! keeps all holders busy.

use crate::content::Geometry;
use crate::swarm::download::limits::{READ_AHEAD_CHUNKS_MIN, READ_AHEAD_LEN_MAX, READ_AHEAD_LEN_MIN};
use crate::swarm::download::picker::ReadWindow;

/// Where a reader is, and how much is fetched ahead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAhead {
    window: ReadWindow,
    min: u32,
    max: u32,
}

impl ReadAhead {
    /// A reader at the beginning of a file.
    pub fn new(geometry: &Geometry) -> Self {
        let chunks = |len: u64| u32::try_from(len / geometry.chunk_len().max(1)).unwrap_or(u32::MAX);
        let [min, max] = [READ_AHEAD_LEN_MIN, READ_AHEAD_LEN_MAX].map(|len| chunks(len).max(READ_AHEAD_CHUNKS_MIN));
        ReadAhead { window: ReadWindow { first: 0, len: min }, min, max }
    }

    /// The reader is at `chunk` now. True if that changes the window.
    pub fn go(&mut self, chunk: u32) -> bool {
        let ReadWindow { first, len } = self.window;
        if chunk == first {
            return false;
        }
        let goes_on = chunk.checked_sub(first).is_some_and(|step| step <= self.min);
        let len = if goes_on { len.saturating_mul(2).min(self.max) } else { self.min };
        self.window = ReadWindow { first: chunk, len };
        true
    }

    /// The chunks from the reader on.
    pub fn window(&self) -> ReadWindow {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 256 << 10;

    #[test]
    fn the_window_grows_while_a_reader_goes_on_and_shrinks_when_it_jumps() {
        let mut ahead = ReadAhead::new(&Geometry::new(256 << 20));
        let (min, max) = ((READ_AHEAD_LEN_MIN / CHUNK) as u32, (READ_AHEAD_LEN_MAX / CHUNK) as u32);
        assert_eq!(ahead.window(), ReadWindow { first: 0, len: min });
        assert!(!ahead.go(0) && ahead.go(1) && ahead.go(3), "a reader may skip some bytes");
        assert_eq!(ahead.window(), ReadWindow { first: 3, len: 4 * min });
        (4..40).for_each(|chunk| assert!(ahead.go(chunk)));
        assert_eq!(ahead.window(), ReadWindow { first: 39, len: max });
        for elsewhere in [900, 2, u32::MAX] {
            assert!(ahead.go(elsewhere));
            assert_eq!(ahead.window(), ReadWindow { first: elsewhere, len: min });
        }
    }

    #[test]
    fn long_chunks_have_a_window_of_several_too() {
        let ahead = ReadAhead::new(&Geometry::new(1 << 44));
        assert_eq!(ahead.window().len, READ_AHEAD_CHUNKS_MIN);
        assert_eq!(ReadAhead::new(&Geometry::new(0)).window().first, 0);
    }
}
