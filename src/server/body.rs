//! The body of an answer, on its way.

use crate::proto::Request;
use crate::server::content::ChunkBody;

/// What is left of a body.
pub(crate) enum Body {
    Bytes { bytes: Vec<u8>, at: usize },
    Chunk(ChunkStream),
}

/// A chunk and its trailer byte, which says whether the bytes before it can be good.
pub(crate) struct ChunkStream {
    source: Box<dyn ChunkBody>,
    /// Bytes of the chunk still to come; the trailer follows.
    left: usize,
    failed: bool,
}

impl Body {
    pub(crate) fn bytes(bytes: Vec<u8>) -> Self {
        Body::Bytes { bytes, at: 0 }
    }

    /// `len` bytes from `source` and the trailer.
    pub(crate) fn chunk(source: Box<dyn ChunkBody>, len: usize) -> Self {
        Body::Chunk(ChunkStream { source, left: len, failed: false })
    }

    /// Puts the next bytes into `into`, as many as fit. Returns how many, and whether the body is
    /// complete.
    pub(crate) fn fill(&mut self, into: &mut [u8]) -> (usize, bool) {
        match self {
            Body::Bytes { bytes, at } => {
                let n = into.len().min(bytes.len() - *at);
                into[..n].copy_from_slice(&bytes[*at..*at + n]);
                *at += n;
                (n, *at == bytes.len())
            }
            Body::Chunk(stream) => stream.fill(into),
        }
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Body::Bytes { bytes, .. } => bytes.len(),
            Body::Chunk(_) => 0,
        }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> usize {
        match self {
            Body::Bytes { bytes, at } => bytes.len() - at,
            Body::Chunk(stream) => stream.left + 1,
        }
    }
}

impl ChunkStream {
    fn fill(&mut self, into: &mut [u8]) -> (usize, bool) {
        let mut filled = 0;
        while self.left > 0 && filled < into.len() {
            let end = into.len().min(filled + self.left);
            let n = match &mut self.source {
                _ if self.failed => 0,
                source => source.read(&mut into[filled..end]).unwrap_or(0),
            };
            if n == 0 {
                // The length is promised already, so the rest is zeros, and the trailer tells.
                self.failed = true;
                into[filled..end].fill(0);
            }
            let n = if n == 0 { end - filled } else { n };
            filled += n;
            self.left -= n;
        }
        if self.left > 0 || filled == into.len() {
            return (filled, false);
        }
        // Asked in any case: a file that ends early has changed, which is to be reported.
        let good = self.source.unchanged() && !self.failed;
        into[filled] = if good { Request::GOOD } else { Request::GONE };
        (filled + 1, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    struct FailingSource {
        len: usize,
        fail_at: usize,
        unchanged: bool,
    }

    impl ChunkBody for FailingSource {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = into.len().min(self.len).min(3);
            if self.len <= self.fail_at {
                return Err(io::Error::other("broken"));
            }
            into[..n].fill(7);
            self.len -= n;
            Ok(n)
        }

        fn unchanged(&mut self) -> bool {
            self.unchanged
        }
    }

    fn all(mut body: Body, step: usize) -> Vec<u8> {
        let mut out = vec![];
        loop {
            let left = body.left();
            let mut into = vec![9; step];
            let (n, complete) = body.fill(&mut into);
            out.extend_from_slice(&into[..n]);
            if complete {
                assert_eq!(n, left);
                return out;
            }
            assert_eq!(body.left(), left - n);
        }
    }

    #[test]
    fn a_chunk_ends_with_a_trailer_that_tells_the_truth() {
        for step in 1..20 {
            let body = |fail_at, unchanged| Body::chunk(Box::new(FailingSource { len: 10, fail_at, unchanged }), 10);
            assert_eq!(all(body(0, true), step), [vec![7; 10], vec![Request::GOOD]].concat());
            assert_eq!(all(body(0, false), step), [vec![7; 10], vec![Request::GONE]].concat());
            let broken = all(body(4, true), step);
            assert_eq!((broken.len(), broken[10], broken[9]), (11, Request::GONE, 0));
            assert_eq!(all(Body::bytes(vec![1, 2, 3]), step), [1, 2, 3]);
        }
    }
}
