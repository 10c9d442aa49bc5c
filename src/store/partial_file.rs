//! A file that is being downloaded: chunks into the file, then durable, then into the journal, at
//! the end under a final name.
//!
//! The order makes `kill -9` and power loss harmless: a chunk is journaled only after a sync of the
//! file that began when it was written, and a name is given only to a file that was synced whole.
//! Everything goes through [`Volume`], so that tests can cut the power between any two steps.
//!
//! A resumed file is believed only if its journal ends with a seal that fits its state: see
//! [`journal`]. Otherwise the chunks that the journal claims are *unchecked*: each counts as
//! written only after it was read and hashed again, and the journal gets no seal before that.
//!
//! [`journal`]: crate::store::journal

use std::io;
use std::sync::{Arc, Mutex};

use log::{Level, log};

use crate::chain::Chain;
use crate::content::{Bitfield, ChunkIndex, Manifest, RelPath};
use crate::proto::Delta;
use crate::store::StoreError;
use crate::store::flusher::{Flusher, WriteOrigin};
use crate::store::place_copy::place_copy;
use crate::store::reuse::ReuseSource;
use crate::store::storage::{self, Volume, explain_full};
use crate::swarm::Arrivals;

mod doubt;
mod mark;
mod open;
mod part;
mod recheck;

use open::OpenedPart;
pub(super) use part::PartNames;
use part::{Flushing, Part};
pub use recheck::{CheckedChunk, ChunkOrigin};

/// A file that is being downloaded: `<dir>/.gpb/<root>-<len>.part`, with a journal beside it and a
/// lock on it.
///
/// Dropping it before [`finish`](PartialFile::finish) makes what was written durable, as
/// [`checkpoint`](PartialFile::checkpoint) does, and leaves both files for a later download.
#[derive(Debug)]
pub struct PartialFile {
    manifest: Arc<Manifest>,
    part: Arc<Part>,
    resumed: u32,
    /// The chunks that hold nothing but zeros.
    zero_chunks: Bitfield,
    /// What chunks may be taken from.
    sources: Mutex<Arc<[ReuseSource]>>,
    /// Keeps the thread that flushes alive.
    flusher: Arc<Flusher>,
}

impl PartialFile {
    /// Opens or resumes the file of `manifest` and reserves its space.
    pub(crate) fn open(
        volume: Arc<dyn Volume>,
        flusher: Arc<Flusher>,
        manifest: Arc<Manifest>,
    ) -> Result<Self, StoreError> {
        Self::open_for(volume, flusher, manifest, false)
    }

    /// As [`open`](Self::open), for readers: a part that is made for them goes soon after them, unless
    /// a download opens or takes it.
    pub(crate) fn open_to_read(
        volume: Arc<dyn Volume>,
        flusher: Arc<Flusher>,
        manifest: Arc<Manifest>,
    ) -> Result<Self, StoreError> {
        Self::open_for(volume, flusher, manifest, true)
    }

    fn open_for(
        volume: Arc<dyn Volume>,
        flusher: Arc<Flusher>,
        manifest: Arc<Manifest>,
        is_read: bool,
    ) -> Result<Self, StoreError> {
        let OpenedPart { part, zero_chunks, claimed } = open::open(volume, &flusher, &manifest, is_read)?;
        let (part, sources) = (Arc::new(part), Mutex::new(Arc::default()));
        Ok(PartialFile { manifest, part, resumed: claimed, zero_chunks, sources, flusher })
    }

    /// What the chunks are checked against.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The chunks that are verified and written, journaled or not. Copies the set; see also
    /// [`has`](PartialFile::has) and [`have_count`](PartialFile::have_count).
    pub fn have(&self) -> Bitfield {
        self.came(|c| c.have().clone())
    }

    /// Whether chunk `index` is verified and written.
    pub fn has(&self, index: ChunkIndex) -> bool {
        self.came(|c| c.have().contains(index))
    }

    /// Whether every chunk is verified and written.
    pub fn is_whole(&self) -> bool {
        self.came(|c| c.have().is_full())
    }

    /// Number of chunks that are verified and written.
    pub fn have_count(&self) -> u32 {
        self.came(|c| c.have().count())
    }

    /// At most `max` of the chunks that came after revision `since`, as [`Arrivals::news`].
    pub fn news(&self, since: u64, max: usize) -> Option<Delta> {
        self.came(|c| c.news(since, max))
    }

    /// All that changed after revision `since`, as [`Arrivals::delta`].
    pub fn delta(&self, since: u64) -> Option<Delta> {
        self.came(|c| c.delta(since))
    }

    /// Number of chunks that the journal claimed when the file was opened, the unchecked ones
    /// included, and chunks of zeros left out.
    pub fn resumed(&self) -> u32 {
        self.resumed
    }

    /// Writes a verified chunk at its offset. Any thread may call this; no lock is held over I/O. A
    /// chunk that is there already is not written again.
    ///
    /// Every half [`JOURNAL_BATCH_LEN`](crate::store::limits::JOURNAL_BATCH_LEN) a thread of the
    /// disk makes what was written durable and appends it to the journal. This call waits while a
    /// whole batch is ahead of that thread.
    ///
    /// # Errors
    /// [`StoreError`]; also what went wrong in that thread. After one, this file takes nothing
    /// more: what the journal holds is there when it is opened again.
    pub fn write(&self, index: ChunkIndex, bytes: &[u8]) -> Result<(), StoreError> {
        self.told(self.write_chunk(index, bytes))
    }

    fn write_chunk(&self, index: ChunkIndex, bytes: &[u8]) -> Result<(), StoreError> {
        let span = self.manifest.geometry().span(index);
        if bytes.len() != span.len as usize || bytes.is_empty() {
            let e = io::Error::new(io::ErrorKind::InvalidInput, "chunk of another length");
            return Err(self.part.error(e));
        }
        self.put(&[index], WriteOrigin::Fetched, || self.part.file.write_at(span.offset, bytes))
    }

    /// Lets `write` put chunks into the file, unless they are there, and counts them as written. Several are put
    /// at once only of those that are checked, which are asked of no peer before that.
    fn put(
        &self,
        chunks: &[ChunkIndex],
        origin: WriteOrigin,
        write: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let part = &*self.part;
        if part.usable().map(|state| chunks.iter().all(|chunk| state.came.have().contains(*chunk)))? {
            return Ok(());
        }
        let len_of = |chunk: &ChunkIndex| u64::from(self.manifest.geometry().span(*chunk).len);
        let len: u64 = chunks.iter().map(len_of).sum();
        part.budget.take(origin, len);
        let written = write();
        let mut state = part.state();
        let done = written.map_err(|e| part.error(e)).and_then(|()| part.refuse_failed(&state));
        let mut news = 0;
        if done.is_ok() && !state.closed {
            for chunk in chunks {
                if state.came.insert(*chunk) {
                    state.dirty.push(*chunk);
                    news += len_of(chunk);
                }
            }
            state.dirty_len[origin as usize] += news;
        }
        if news > 0 && !std::mem::replace(&mut state.queued, true) {
            // Under the lock, so that the end of the file, which takes it out again, cannot come in
            // between.
            part.budget.enqueue(part.inode, self.part.clone());
        }
        drop(state);
        part.budget.put_back(origin.bytes(len - news));
        done
    }

    /// Makes what was written durable, and the journal too, which is sealed: for an orderly end.
    /// Waits up to [`TICK_MAX`](crate::store::limits::TICK_MAX) after the last write.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.told(self.part.checkpoint())
    }

    /// Reads bytes of a chunk that is in `have`, during the download and after it.
    ///
    /// # Errors
    /// [`StoreError`], also when the file ends early.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.part.file.read_at(offset, into).map_err(|e| self.part.error(e))
    }

    /// Puts the whole file in place: makes the further ones of `paths` as copies, syncs and renames
    /// the file to the first of `paths`, syncs the directories, and removes the journal. Older
    /// files of these names are replaced only now.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NotWhole`] when chunks are missing. The partial file stays as
    /// it is, and this may be called again.
    pub fn finish(&self, paths: &[RelPath]) -> Result<(), StoreError> {
        self.told(self.put_in_place(&*self.part.volume, paths))
    }

    fn put_in_place(&self, volume: &dyn Volume, paths: &[RelPath]) -> Result<(), StoreError> {
        let part = &*self.part;
        let mut flushing = part.flushing();
        let Some((first, further)) = paths.split_first() else { return part.usable().map(drop) };
        self.check_whole()?;
        self.unmark()?;
        self.dress(volume, first)?;
        if further.is_empty() {
            let batch = part.sync_file()?;
            // Nothing but the name is missing, so the journal is brought up to date only if that
            // fails.
            if let Err(e) = self.read_back().and_then(|()| self.place(volume, first, &mut flushing)) {
                let journaled = part.journal(&mut flushing, batch);
                self.flusher.told().tell(&e);
                self.log_news("journal not written", journaled);
                return Err(e);
            }
            part.budget.put_back(batch.len);
        } else {
            // Copies take time and space, so the chunks are journaled before: a failed copy costs
            // no bytes. The file itself moves last, so that until then all can be repeated.
            part.flush_batch(&mut flushing)?;
            self.read_back()?;
            self.sync_dressed(volume, first)?;
            further.iter().try_for_each(|path| self.copy_to(volume, path))?;
            self.place(volume, first, &mut flushing)?;
        }
        part.end(&mut flushing);
        Ok(())
    }

    /// Puts the whole file in place as [`finish`](Self::finish) does, but a place that cannot be
    /// used keeps no other one from its file. One result for each of `paths`, which are places in
    /// `volume`: that of the file, or another one of the same directory.
    ///
    /// # Errors
    /// [`StoreError`] if the file can be put at none of them. As long as it is at none, the partial
    /// file stays as it is.
    pub(crate) fn finish_each(
        &self,
        volume: &dyn Volume,
        paths: &[RelPath],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let Some((first, further)) = paths.split_first() else { return Ok(Vec::new()) };
        if further.is_empty() {
            return Ok(vec![self.told(self.put_in_place(volume, paths))]);
        }
        let part = &*self.part;
        let mut flushing = part.flushing();
        self.check_whole()?;
        self.unmark()?;
        self.dress(volume, first)?;
        // As for a copy in `put_in_place`.
        part.flush_batch(&mut flushing)?;
        self.told(self.read_back())?;
        self.sync_dressed(volume, first)?;
        let copied: Vec<_> = further.iter().map(|path| self.told(self.copy_to(volume, path))).collect();
        let placed = self.told(self.place(volume, first, &mut flushing));
        if placed.is_err() && copied.iter().any(Result::is_ok) {
            // Its content is where it was wanted, so nothing is left to resume.
            let removed = part.volume.remove_own(&part.names.part);
            removed.map_err(|e| StoreError::at(&part.path, e))?;
        }
        if placed.is_ok() || copied.iter().any(Result::is_ok) {
            part.end(&mut flushing);
        }
        Ok(std::iter::once(placed).chain(copied).collect())
    }

    /// An error unless all chunks are there, and the own name means the file.
    fn check_whole(&self) -> Result<(), StoreError> {
        let part = &*self.part;
        let missing = part.usable().map(|s| s.came.have().len() - s.came.have().count())?;
        if missing > 0 {
            return Err(StoreError::NotWhole { path: part.path.clone(), missing });
        }
        part.check_same_file()
    }

    fn dress(&self, volume: &dyn Volume, path: &RelPath) -> Result<(), StoreError> {
        storage::dress(volume, &*self.part.file, path).map_err(|e| self.part.error(e))
    }

    /// Makes the attributes durable, where no chunk that is still to be made durable has done so.
    fn sync_dressed(&self, volume: &dyn Volume, path: &RelPath) -> Result<(), StoreError> {
        match volume.dress_of(path) {
            Some(_) => self.part.file.sync().map_err(|e| self.part.error(e)),
            None => Ok(()),
        }
    }

    fn place(&self, volume: &dyn Volume, path: &RelPath, flushing: &mut Flushing) -> Result<(), StoreError> {
        if volume.is_taken(path) {
            self.part.note_placing(flushing);
        }
        let placed = volume.place(&[(self.part.names.part.clone(), path)]).pop().unwrap_or(Ok(()));
        placed.map_err(|e| explain_full(volume, e, 0))
    }

    /// Makes `path` in `volume` a durable copy of the whole file.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NotWhole`] when chunks are missing.
    pub(crate) fn copy_to(&self, volume: &dyn Volume, path: &RelPath) -> Result<(), StoreError> {
        self.check_whole()?;
        place_copy(volume, &*self.part.file, self.part.id.len, path, || Ok(()))
    }

    /// Whether it lies in the own directory of `volume`, so that it can be placed there.
    pub(crate) fn lies_in(&self, volume: &dyn Volume) -> bool {
        let (own, other) = (self.part.volume.root_id(), volume.root_id());
        own.is_some() && own == other
    }

    /// Whether it is neither placed nor let go: no other program writes to it.
    pub(crate) fn is_open(&self) -> bool {
        !self.part.state().closed
    }

    /// As [`checkpoint`](Self::checkpoint), for the end of a download: an error is logged, unless it
    /// is the trouble that ends it.
    pub fn suspend(&self) {
        self.log_news("not journaled", self.part.checkpoint());
    }

    /// Notes an error that the caller gets.
    fn told(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        result.inspect_err(|e| {
            self.flusher.told().tell(e);
        })
    }

    /// Logs an error that no caller gets, unless one got an error of this kind: a full disk stops
    /// each file, and is one trouble.
    fn log_news(&self, what: &str, result: Result<(), StoreError>) {
        if let Err(e) = result {
            let level = if self.flusher.told().tell(&e) { Level::Warn } else { Level::Info };
            log!(level, "{what} file={} error=\"{}\"", self.part.id, Chain(&e));
        }
    }

    fn came<R>(&self, look: impl FnOnce(&Arrivals) -> R) -> R {
        look(&self.part.state().came)
    }

    /// Whether nothing is lost with the file: no chunk but zeros came, and none may be in it.
    fn holds_nothing(&self) -> bool {
        let state = self.part.state();
        !state.closed && *state.came.have() == self.zero_chunks && state.unchecked.is_empty()
    }

    /// Ends the use of the file as a killed process would.
    #[cfg(test)]
    pub(crate) fn kill(self) {
        self.part.close();
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        self.suspend();
        if self.holds_nothing() {
            // Its room would stay reserved for nothing.
            self.part.remove();
        }
        self.part.close();
    }
}

#[cfg(test)]
mod tests;
