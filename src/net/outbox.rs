//! Bytes on their way to a socket.

/// Sealed bytes that wait to be written: appended at the end, taken from the front. The memory is
/// zeroed once, not for every record, and stays.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outbox {
    /// Nothing to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is to be sent.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Number of bytes to be sent.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` bytes are sent.
    pub fn sent(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Drops the data, but not the memory.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room for `n` bytes behind the data; [`added`](Outbox::added) says how many were written
    /// there.
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        if self.bytes.len() < self.end + n && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() < self.end + n {
            self.bytes.resize(self.end + n, 0);
        }
        &mut self.bytes[self.end..self.end + n]
    }

    /// `n` bytes were written to the front of [`room`](Outbox::room).
    pub fn added(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.added(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut out = Outbox::new();
        out.push(b"abc");
        out.room(10)[..2].copy_from_slice(b"de");
        out.added(2);
        out.sent(2);
        assert_eq!(out.data(), b"cde");
        out.push(&[7; 100]);
        assert_eq!((&out.data()[..3], out.len()), (&b"cde"[..], 103));
        out.sent(usize::MAX);
        assert!(out.is_empty());
        out.push(b"x");
        assert_eq!(out.data(), b"x");
    }
}
