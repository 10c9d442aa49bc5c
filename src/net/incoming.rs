//! Bytes on their way from a socket; see [`Outbox`](crate::net::Outbox) for the other way.

/// Ciphertext from a socket: `bytes[start..end]` is not used up yet.
#[derive(Debug)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) fn new(len: usize) -> Self {
        Incoming { bytes: vec![0; len], start: 0, end: 0 }
    }

    /// Makes the buffer at least `len` bytes long.
    pub(super) fn grow(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }

    /// What is not used up.
    pub(super) fn data(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// The first `used` bytes are used up.
    pub(super) fn take(&mut self, used: usize) {
        self.start += used;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where to read to. Reading happens only when no whole record is left, so what moves to the
    /// front is at most the beginning of one.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// `n` bytes were read to the front of [`room`](Self::room).
    pub(super) fn added(&mut self, n: usize) {
        self.end += n;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}
