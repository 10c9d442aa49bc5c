//! A file that is being downloaded, and the journal of its verified chunks.

use std::sync::Arc;

use crate::content::{Bitfield, ChunkIndex, Manifest, RelPath};
use crate::store::StoreError;

/// A file that is being downloaded: `<dir>/.gpb/<root>-<len>.part`, flocked, with a journal beside it.
#[derive(Debug)]
pub struct PartialFile;

impl PartialFile {
    /// What the chunks are checked against.
    pub fn manifest(&self) -> &Arc<Manifest> {
        todo!()
    }

    /// The chunks that are verified and written (journaled or not).
    pub fn have(&self) -> Bitfield {
        todo!()
    }

    /// How many chunks the journal gave back when the file was opened.
    pub fn resumed(&self) -> u32 {
        todo!()
    }

    /// Writes a verified chunk at its offset; any thread, no lock held over I/O. Every `JOURNAL_BATCH_LEN` bytes a
    /// thread of its own makes what was written durable and appends it to the journal.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn write(&self, index: ChunkIndex, bytes: &[u8]) -> Result<(), StoreError> {
        todo!("{index:?} {}", bytes.len())
    }

    /// Makes what was written durable and journals it, now (before exit, on interruption).
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Reads bytes of a chunk that is in `have`; for serving while downloading.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        todo!("{offset} {}", into.len())
    }

    /// The file is whole: fsync, rename to each of `paths` (the first by rename, further ones by copy), fsync of the
    /// directories, journal removed. Call it once every chunk is written.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn finish(&self, paths: &[RelPath]) -> Result<(), StoreError> {
        todo!("{paths:?}")
    }
}
