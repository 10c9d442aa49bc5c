//! A file that is being downloaded: what the rest of the crate sees of it.

use std::sync::Arc;

use log::warn;

use crate::chain::Chain;
use crate::content::{Bitfield, ChunkIndex, Manifest, RelPath, merkle};
use crate::limits::READ_LEN;
use crate::proto::Delta;
use crate::store::StoreError;
use crate::store::flusher::Flusher;
use crate::store::part::Part;

/// A file that is being downloaded: `<dir>/.gpb/<root>-<len>.part`, flocked, with a journal beside it.
///
/// Dropping it before [`finish`](PartialFile::finish) makes what was written durable, as
/// [`checkpoint`](PartialFile::checkpoint) does, and leaves both files for a later download.
#[derive(Debug)]
pub struct PartialFile {
    manifest: Arc<Manifest>,
    part: Arc<Part>,
    /// Keeps the thread that flushes alive.
    _flusher: Arc<Flusher>,
}

impl PartialFile {
    pub(crate) fn new(manifest: Arc<Manifest>, part: Arc<Part>, flusher: Arc<Flusher>) -> Self {
        PartialFile { manifest, part, _flusher: flusher }
    }

    /// What the chunks are checked against.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The chunks that are verified and written (journaled or not). Copies the set; see also
    /// [`has`](PartialFile::has) and [`have_count`](PartialFile::have_count).
    pub fn have(&self) -> Bitfield {
        self.part.came(|c| c.have().clone())
    }

    /// Whether chunk `index` is verified and written.
    pub fn has(&self, index: ChunkIndex) -> bool {
        self.part.came(|c| c.have().contains(index))
    }

    /// How many chunks are verified and written.
    pub fn have_count(&self) -> u32 {
        self.part.came(|c| c.have().count())
    }

    /// What somebody who knows the state `since` is to be told, briefly: at most `max` chunks, as [`news`](crate::swarm::Arrivals::news).
    pub fn news(&self, since: u64, max: usize) -> Option<Delta> {
        self.part.came(|c| c.news(since, max))
    }

    /// What somebody who knows the state `since` is to be told, in full, as [`delta`](crate::swarm::Arrivals::delta).
    pub fn delta(&self, since: u64) -> Option<Delta> {
        self.part.came(|c| c.delta(since))
    }

    /// How many chunks the journal gave back when the file was opened, the unchecked ones included.
    pub fn resumed(&self) -> u32 {
        self.part.resumed()
    }

    /// The chunks that the journal claims, but of which nothing proves that they are still as they were: the file was
    /// not left by an orderly end, or was touched since. They count as written only after [`recheck`](Self::recheck).
    pub fn unchecked(&self) -> Bitfield {
        self.part.unchecked()
    }

    /// Reads and hashes the next [`unchecked`](Self::unchecked) chunks, `max_len` bytes of them or a little more, and
    /// says which are right; none when no one is left. A chunk that cannot be read is wrong: it is to be written
    /// again. Several threads may do this at the same time. Needs [`READ_LEN`] bytes of memory.
    pub fn recheck(&self, max_len: u64) -> Vec<(ChunkIndex, bool)> {
        let (mut done, mut len) = (Vec::new(), 0);
        let mut hash = (merkle::Blocks::new(), vec![0; READ_LEN]);
        while len < max_len
            && let Some(index) = self.part.next_unchecked()
        {
            let right = self.is_right(index, &mut hash);
            self.part.checked(index, right);
            done.push((index, right));
            len += self.manifest.geometry().span(index).len as u64;
        }
        done
    }

    fn is_right(&self, index: ChunkIndex, (blocks, buffer): &mut (merkle::Blocks, Vec<u8>)) -> bool {
        let geometry = self.manifest.geometry();
        let span = geometry.span(index);
        let (mut offset, end) = (span.offset, span.offset + span.len as u64);
        blocks.clear();
        while offset < end {
            let run = (end - offset).min(buffer.len() as u64) as usize;
            if let Err(e) = self.part.read_at(offset, &mut buffer[..run]) {
                warn!("chunk not readable file={} chunk={} error=\"{}\"", self.manifest.id(), index.get(), Chain(&e));
                return false;
            }
            blocks.push(&buffer[..run]);
            offset += run as u64;
        }
        match self.manifest.layer().get(index.as_usize()) {
            Some(digest) => blocks.finish_chunk(geometry.chunk_height()) == *digest,
            None => blocks.finish_root() == self.manifest.id().root.0,
        }
    }

    /// Writes a verified chunk at its offset; any thread, no lock held over I/O. A chunk that is there already is
    /// not written again. Every half [`JOURNAL_BATCH_LEN`](crate::store::limits::JOURNAL_BATCH_LEN) a thread of the disk
    /// makes what was written durable and appends it to the journal; a whole one ahead of that thread, this waits.
    ///
    /// # Errors
    /// [`StoreError`]; also what went wrong in that thread. After one, this file takes nothing more: what the journal
    /// holds is there when it is opened again.
    pub fn write(&self, index: ChunkIndex, bytes: &[u8]) -> Result<(), StoreError> {
        self.part.write(index, bytes)
    }

    /// Makes what was written durable and journals it, now (before exit, on interruption).
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.part.checkpoint()
    }

    /// Reads bytes of a chunk that is in `have`; for serving while downloading, and after it.
    ///
    /// # Errors
    /// [`StoreError`], also when the file ends early.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.part.read_at(offset, into)
    }

    /// The file is whole: further ones of `paths` are made as copies, then fsync, rename to the first of `paths`,
    /// fsync of the directories, journal removed. Older files of those names are replaced only now. Call it once every
    /// chunk is written.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NotWhole`] when chunks are missing. The partial file stays as it is, and this may
    /// be called again.
    pub fn finish(&self, paths: &[RelPath]) -> Result<(), StoreError> {
        self.part.finish(paths)
    }

    /// Lets go of the file as a killed process would.
    #[cfg(test)]
    pub(crate) fn kill(self) {
        self.part.close();
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Err(e) = self.part.checkpoint() {
            warn!("partial file not journaled: error=\"{}\"", Chain(&e));
        }
        self.part.close();
    }
}
