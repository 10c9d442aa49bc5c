//! Where the bytes of a content are that is being read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::content::{ChunkIndex, Manifest};
use crate::store::PartialFile;

/// Where the bytes are.
#[derive(Clone)]
pub(crate) enum ReadSource {
    /// In a part, of which some chunks are there. Once it has its final name other programs may
    /// change it.
    Part(Arc<PartialFile>),
    /// In a file that other programs may change.
    Placed(Arc<PlacedContent>),
}

/// A whole file.
pub(crate) struct PlacedContent {
    file: File,
    manifest: Arc<Manifest>,
}

/// The chunk that a reader verified last.
#[derive(Default)]
pub(crate) struct VerifiedChunk(Option<(ChunkIndex, Vec<u8>)>);

impl ReadSource {
    /// All of it lies in `file`.
    pub(crate) fn placed(file: File, manifest: Arc<Manifest>) -> Self {
        ReadSource::Placed(Arc::new(PlacedContent { file, manifest }))
    }

    /// Whether both are the same file.
    pub(crate) fn is(&self, other: &ReadSource) -> bool {
        match (self, other) {
            (ReadSource::Part(a), ReadSource::Part(b)) => Arc::ptr_eq(a, b),
            (ReadSource::Placed(a), ReadSource::Placed(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Whether only this node writes to it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, ReadSource::Part(part) if part.is_open())
    }

    /// Whether `chunk` is there.
    pub(crate) fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            ReadSource::Part(part) => part.has(chunk),
            ReadSource::Placed(_) => true,
        }
    }

    /// Fills `into` with verified bytes from `offset` on, which lie in `chunk`. False if the chunk is
    /// not there after all, or not as it was verified.
    ///
    /// Only the node writes to an open part, so that what was verified before it was written is
    /// right. Of any other file the whole chunk is verified, once for all reads of it in a row.
    pub(crate) fn read(
        &self,
        (chunk, offset): (ChunkIndex, u64),
        into: &mut [u8],
        last: &mut VerifiedChunk,
    ) -> io::Result<bool> {
        if let ReadSource::Part(part) = self {
            let read = part.read_at(offset, into);
            // It may have been placed meanwhile.
            if part.is_open() {
                return if part.has(chunk) { read.map(|()| true).map_err(io::Error::other) } else { Ok(false) };
            }
        }
        let span = self.manifest().geometry().span(chunk);
        let Some(bytes) = last.bytes(chunk, || self.verified(chunk)) else { return Ok(false) };
        let from = offset.saturating_sub(span.offset) as usize;
        let Some(part) = bytes.get(from..from + into.len()) else { return Ok(false) };
        into.copy_from_slice(part);
        Ok(true)
    }

    fn manifest(&self) -> &Manifest {
        match self {
            ReadSource::Part(part) => part.manifest(),
            ReadSource::Placed(placed) => &placed.manifest,
        }
    }

    /// The bytes of `chunk`, if they are right.
    fn verified(&self, chunk: ChunkIndex) -> Option<Vec<u8>> {
        let span = self.manifest().geometry().span(chunk);
        let mut bytes = vec![0; span.len as usize];
        let is_read = match self {
            ReadSource::Part(part) => part.read_at(span.offset, &mut bytes).is_ok(),
            ReadSource::Placed(placed) => placed.file.read_exact_at(&mut bytes, span.offset).is_ok(),
        };
        (is_read && self.manifest().verify(chunk, &bytes)).then_some(bytes)
    }
}

impl VerifiedChunk {
    fn bytes(&mut self, chunk: ChunkIndex, verify: impl FnOnce() -> Option<Vec<u8>>) -> Option<&[u8]> {
        if self.0.as_ref().is_none_or(|(of, _)| *of != chunk) {
            self.0 = verify().map(|bytes| (chunk, bytes));
        }
        self.0.as_ref().map(|(_, bytes)| bytes.as_slice())
    }
}
