//! Values out of bytes: what a structured target builds its messages from.
//!
//! The bytes are read from the front, and what is missing at the end counts as zeros. So a fuzzer that changes one byte
//! changes one value, and a shorter input is a simpler run.

use gpb::internals::content::{Digest, FileId, Root};

/// Bytes that are taken as values.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number = if end <= 256 { usize::from(self.byte()) } else { self.number() as usize };
        number % end
    }

    /// A number of any size: mostly small, and often at an edge.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=0x7f => u64::from(small),
            0x80..=0x9f => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            0xa0..=0xaf => u64::MAX - u64::from(self.byte()),
            0xb0..=0xbf => 1 << (self.byte() % 64),
            0xc0..=0xcf => (1 << (self.byte() % 64)) - 1,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// At most `max` bytes: a length of one byte (or two, for a larger `max`), and as many as are there.
    pub fn slice(&mut self, max: usize) -> &'a [u8] {
        let len =
            if max < 256 { usize::from(self.byte()) } else { usize::from(self.byte()) << 8 | self.byte() as usize };
        self.bytes(len.min(max))
    }

    /// A text of at most `max` bytes.
    pub fn text(&mut self, max: usize) -> String {
        let mut text = String::from_utf8_lossy(self.slice(max)).into_owned();
        while text.len() > max {
            text.pop();
        }
        text
    }

    /// At most that many bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// What is left, without taking it.
    pub fn peek(&self) -> &'a [u8] {
        self.0
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn file_id(&mut self) -> FileId {
        FileId { root: Root(Digest([self.byte(); 32])), len: self.number() }
    }
}
