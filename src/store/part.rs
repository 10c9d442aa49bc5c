//! The partial file itself: chunks into the file, then durable, then into the journal, at the end under a final name.
//!
//! The order is what makes `kill -9` and power loss harmless: a chunk is journaled only after a sync of the file that
//! began when it was written, and a name is given only to a file that was synced whole. Everything goes through
//! [`Volume`], so that tests can cut the power between any two steps.
//!
//! A resumed part is believed only if its journal ends with a seal that fits its state: see [`journal`]. Otherwise the
//! chunks that the journal claims are *unchecked*: they count as written only after each was read and hashed again,
//! and the journal gets no seal before that.
//!
//! [`journal`]: crate::store::journal

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use log::{info, warn};

use crate::chain::Chain;
use crate::content::{Bitfield, ChunkIndex, FileId, Geometry, RelPath, Stamp};
use crate::store::StoreError;
use crate::store::error::again;
use crate::store::flusher::{Budget, Flush};
use crate::store::journal::{Claims, Journal};
use crate::store::limits::{JOURNAL_SYNC_LEN, PART_OPEN_TRIES, SETTLE_TRIES, TICK_MAX};
use crate::store::storage::{self, Stat, Storage, Volume};
use crate::swarm::Arrivals;

/// An open, locked partial file.
#[derive(Debug)]
pub(crate) struct Part {
    id: FileId,
    geometry: Geometry,
    volume: Arc<dyn Volume>,
    budget: Arc<Budget>,
    file: Arc<dyn Storage>,
    inode: u64,
    names: Names,
    path: PathBuf,
    resumed: u32,
    state: Mutex<State>,
    /// Held by whoever flushes, over its I/O: flushes and the end come one after the other. Writers never take it.
    flushing: Mutex<Flushing>,
}

#[derive(Debug)]
struct State {
    came: Arrivals,
    /// Chunks that the journal claims and nobody has checked yet, the next one last.
    unchecked: Vec<ChunkIndex>,
    /// Chunks that are being checked.
    checking: u32,
    /// In `came`, but not durable.
    dirty: Vec<ChunkIndex>,
    dirty_len: u64,
    queued: bool,
    /// Why nothing more can be written.
    failed: Option<io::Error>,
    /// In place, or let go of.
    closed: bool,
}

#[derive(Debug, Default)]
struct Flushing {
    /// Made with the first record, so a short download never has one.
    journal: Option<Journal>,
    unsynced_len: u64,
}

#[derive(Debug)]
struct Names {
    part: String,
    journal: String,
}

/// Chunks that became durable together.
struct Batch {
    chunks: Vec<ChunkIndex>,
    len: u64,
}

impl Part {
    /// Opens or resumes the partial file of `id` and reserves its space.
    pub(crate) fn open(volume: Arc<dyn Volume>, budget: Arc<Budget>, id: FileId) -> Result<Arc<Self>, StoreError> {
        let geometry = Geometry::new(id.len);
        let names = Names::new(&id);
        let path = volume.path_of_own(&names.part);
        let at = |e| StoreError::at(&path, e);
        volume.make_own()?;
        let (file, fresh) = open_locked(&*volume, &names.part, &path)?;
        let stat = file.stat().map_err(at)?;
        // Another length: its creation was interrupted, or somebody else cut it. No journal can speak of it.
        let kept = if fresh || stat.len != id.len {
            discard_journal(&*volume, &names.journal)?;
            None
        } else {
            resume(&*volume, &names.journal, &id, &stat)?
        };
        if let Err(e) = reserve(&*volume, &*file, &path, id.len, stat) {
            if fresh {
                // Nothing is lost with it, and a reservation cut short must not keep the disk full.
                let _ = volume.remove_own(&names.part);
                volume.tidy();
            }
            return Err(e);
        }
        let (journal, claims) = kept.unzip();
        let nothing = || Bitfield::empty(geometry.chunk_count());
        let (have, unchecked) = match claims {
            Some(Claims { have, proved: true }) => (have, nothing()),
            Some(Claims { have, proved: false }) => (nothing(), have),
            None => (nothing(), nothing()),
        };
        let resumed = have.count() + unchecked.count();
        let mut unchecked: Vec<ChunkIndex> = unchecked.iter().filter_map(|i| geometry.chunk(i)).collect();
        unchecked.reverse();
        let state = State {
            came: Arrivals::new(have),
            unchecked,
            checking: 0,
            dirty: Vec::new(),
            dirty_len: 0,
            queued: false,
            failed: None,
            closed: false,
        };
        Ok(Arc::new(Part {
            id,
            geometry,
            inode: stat.stamp.inode,
            volume,
            budget,
            file,
            names,
            path,
            resumed,
            state: Mutex::new(state),
            flushing: Mutex::new(Flushing { journal, unsynced_len: 0 }),
        }))
    }

    /// Looks at the chunks that are written.
    pub(crate) fn came<R>(&self, look: impl FnOnce(&Arrivals) -> R) -> R {
        look(&self.state().came)
    }

    /// Chunks that the journal gave back.
    pub(crate) fn resumed(&self) -> u32 {
        self.resumed
    }

    /// Chunks that the journal claims and that are still to be checked.
    pub(crate) fn unchecked(&self) -> Bitfield {
        let mut unchecked = Bitfield::empty(self.geometry.chunk_count());
        for chunk in &self.state().unchecked {
            unchecked.insert(*chunk);
        }
        unchecked
    }

    /// The next chunk to check, for one caller alone, which then calls [`checked`](Self::checked).
    pub(crate) fn next_unchecked(&self) -> Option<ChunkIndex> {
        let mut state = self.state();
        let next = state.unchecked.pop()?;
        state.checking += 1;
        Some(next)
    }

    /// What a chunk from [`next_unchecked`](Self::next_unchecked) turned out to be. A right one counts as written and
    /// durable: the journal claims it.
    pub(crate) fn checked(&self, index: ChunkIndex, right: bool) {
        let mut state = self.state();
        state.checking -= 1;
        if right {
            state.came.insert(index);
        }
    }

    /// Writes a chunk.
    pub(crate) fn write(self: &Arc<Self>, index: ChunkIndex, bytes: &[u8]) -> Result<(), StoreError> {
        let span = self.geometry.span(index);
        if bytes.len() != span.len as usize || bytes.is_empty() {
            return Err(self.error(io::Error::new(io::ErrorKind::InvalidInput, "chunk of another length")));
        }
        if self.check_open()?.came.have().contains(index) {
            return Ok(());
        }
        let len = span.len as u64;
        self.budget.take(len);
        let written = self.file.write_at(span.offset, bytes);
        let mut state = self.state();
        let done = written.map_err(|e| self.error(e)).and_then(|()| self.refuse_failed(&state));
        if done.is_err() || state.closed || !state.came.insert(index) {
            drop(state);
            self.budget.put_back(len);
            return done;
        }
        state.dirty.push(index);
        state.dirty_len += len;
        if !std::mem::replace(&mut state.queued, true) {
            // Under the lock, so that the end of the file, which takes it out again, cannot come in between.
            self.budget.enqueue(self.inode, self.clone());
        }
        Ok(())
    }

    /// Makes what is written durable, and the journal too, which is sealed.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let mut flushing = self.flushing();
        self.flush_batch(&mut flushing)?;
        self.seal(&mut flushing).map_err(|e| StoreError::at(self.volume.path_of_own(&self.names.journal), e))?;
        self.sync_journal(&mut flushing)
    }

    /// Reads what is written.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_at(offset, into).map_err(|e| self.error(e))
    }

    /// Puts the whole file in place.
    pub(crate) fn finish(&self, paths: &[RelPath]) -> Result<(), StoreError> {
        let mut flushing = self.flushing();
        let missing = self.check_open().map(|s| s.came.have().len() - s.came.have().count())?;
        let Some((first, further)) = paths.split_first() else { return Ok(()) };
        if missing > 0 {
            return Err(StoreError::NotWhole { path: self.path.clone(), missing });
        }
        self.check_same_file()?;
        if further.is_empty() {
            let batch = self.sync_file()?;
            // Nothing but the name is missing, so the journal is brought up to date only if that fails.
            if let Err(e) = self.place(&self.names.part, first) {
                if let Err(e) = self.journal(&mut flushing, batch) {
                    warn!("journal not written file={} error=\"{}\"", self.id, Chain(&e));
                }
                return Err(e);
            }
            self.budget.put_back(batch.len);
        } else {
            // Copies take time and space: what they are made of is not to be fetched again if they fail. The file
            // itself moves last, so that until then all can be repeated.
            self.flush_batch(&mut flushing)?;
            further.iter().try_for_each(|path| self.copy_to(path))?;
            self.place(&self.names.part, first)?;
        }
        self.state().closed = true;
        self.budget.dequeue(self.inode);
        flushing.journal = None;
        // A journal that stays behind does not fit any later file: a fresh one removes it first.
        if let Err(e) = self.volume.remove_own(&self.names.journal) {
            warn!("journal not removed file={} error=\"{}\"", self.id, Chain(&e));
        }
        self.file.unlock();
        self.volume.tidy();
        Ok(())
    }

    /// Lets go of the file: nothing more is written or journaled, others may open it.
    pub(crate) fn close(&self) {
        let _flushing = self.flushing();
        let mut state = self.state();
        let len = discard(&mut state);
        let unlock = !std::mem::replace(&mut state.closed, true);
        drop(state);
        self.budget.put_back(len);
        if unlock {
            self.budget.dequeue(self.inode);
            self.file.unlock();
        }
    }

    /// Verify and write came before; this is the sync and the journal. The order of the three is the point.
    fn flush_batch(&self, flushing: &mut Flushing) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            state.queued = false;
            if state.closed {
                return Ok(());
            }
            self.refuse_failed(&state)?;
            if state.dirty.is_empty() {
                return Ok(());
            }
        }
        let batch = self.sync_file()?;
        self.journal(flushing, batch)
    }

    /// Takes what is dirty and syncs the file. After an error nothing that was not journaled before can be trusted,
    /// not even what was written during the sync: its failure may have been reported by this sync and by no later one.
    fn sync_file(&self) -> Result<Batch, StoreError> {
        let batch = {
            let mut state = self.state();
            Batch { chunks: std::mem::take(&mut state.dirty), len: std::mem::take(&mut state.dirty_len) }
        };
        match self.file.sync() {
            Ok(()) => Ok(batch),
            Err(e) => Err(self.fail(batch, e)),
        }
    }

    /// Appends durable chunks to the journal, which is made if there is none.
    fn journal(&self, flushing: &mut Flushing, batch: Batch) -> Result<(), StoreError> {
        match self.append(flushing, &batch.chunks) {
            Ok(()) => {
                flushing.unsynced_len += batch.len;
                self.budget.put_back(batch.len);
                if flushing.unsynced_len >= JOURNAL_SYNC_LEN { self.sync_journal(flushing) } else { Ok(()) }
            }
            Err(e) => Err(self.fail(batch, e)),
        }
    }

    fn append(&self, flushing: &mut Flushing, chunks: &[ChunkIndex]) -> io::Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        if let Some(journal) = &mut flushing.journal {
            return journal.append(chunks);
        }
        // Opening removed any that does not fit.
        let file = self.volume.create_own(&self.names.journal)?.ok_or(io::ErrorKind::AlreadyExists)?;
        let mut journal = Journal::create(file, &self.id, self.inode)?;
        journal.append(chunks)?;
        flushing.journal = Some(journal);
        // Both names at once; without them a power loss would cost what the records keep.
        self.volume.sync_own()
    }

    fn sync_journal(&self, flushing: &mut Flushing) -> Result<(), StoreError> {
        if let Some(journal) = flushing.journal.as_ref().filter(|_| flushing.unsynced_len > 0) {
            journal.sync().map_err(|e| StoreError::at(self.volume.path_of_own(&self.names.journal), e))?;
            flushing.unsynced_len = 0;
        }
        Ok(())
    }

    /// Seals the journal, unless a chunk is not durable or not checked: the seal says exactly what the file holds.
    /// Should a write run meanwhile, the file has other times than the seal, which then proves nothing.
    fn seal(&self, flushing: &mut Flushing) -> io::Result<()> {
        let Some(journal) = &mut flushing.journal else { return Ok(()) };
        let Some(stamp) = self.settled_stamp()? else { return Ok(()) };
        let have = {
            let state = self.state();
            if state.closed || !state.dirty.is_empty() || !state.unchecked.is_empty() || state.checking > 0 {
                return Ok(());
            }
            state.came.have().clone()
        };
        if journal.seal(stamp, &have)? {
            journal.sync()?;
            flushing.unsynced_len = 0;
        }
        Ok(())
    }

    /// The state of the file, once a later write is sure to change its times. The kernel stamps files by a clock that
    /// advances in ticks (of 1 to 10 ms), so a write in the tick of the last one leaves no trace. `None` if the last
    /// write seems to lie ahead of now, or others write all the time: such a file is checked when it is resumed.
    fn settled_stamp(&self) -> io::Result<Option<Stamp>> {
        for _ in 0..SETTLE_TRIES {
            let stat = self.file.stat()?;
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let changed = Duration::from_nanos(u64::try_from(stat.stamp.ctime_ns).unwrap_or(0));
            match now.checked_sub(changed) {
                Some(age) if age >= TICK_MAX => return Ok((stat.len == self.id.len).then_some(stat.stamp)),
                Some(age) => std::thread::sleep(TICK_MAX - age),
                None => break,
            }
        }
        Ok(None)
    }

    /// Discards what is not journaled and refuses everything from now on.
    fn fail(&self, batch: Batch, e: io::Error) -> StoreError {
        let mut state = self.state();
        state.dirty.extend(&batch.chunks);
        state.dirty_len += batch.len;
        let len = discard(&mut state);
        state.failed = Some(again(&e));
        drop(state);
        self.budget.put_back(len);
        let e = self.error(e);
        warn!("batch discarded file={} chunks={} error=\"{}\"", self.id, batch.chunks.len(), Chain(&e));
        e
    }

    fn place(&self, own: &str, path: &RelPath) -> Result<(), StoreError> {
        self.volume.place(&[(own.to_owned(), path)]).pop().unwrap_or(Ok(()))
    }

    fn copy_to(&self, path: &RelPath) -> Result<(), StoreError> {
        storage::place_copy(&*self.volume, &*self.file, self.id.len, path, || Ok(())).map_err(|e| self.room(e))
    }

    /// Whether the own name still means the open file, at its full length. Nobody but us should touch it; if somebody
    /// did, what they left must not get the final name.
    fn check_same_file(&self) -> Result<(), StoreError> {
        let stat = self.file.stat().map_err(|e| self.error(e))?;
        let inode = self.volume.inode_of_own(&self.names.part).map_err(|e| self.error(e))?;
        if stat.len == self.id.len && inode == Some(self.inode) {
            return Ok(());
        }
        Err(self.error(io::Error::other("the partial file was changed or removed by somebody else")))
    }

    fn check_open(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        self.refuse_failed(&state)?;
        Ok(state)
    }

    fn refuse_failed(&self, state: &State) -> Result<(), StoreError> {
        state.failed.as_ref().map_or(Ok(()), |e| Err(self.error(again(e))))
    }

    fn error(&self, e: io::Error) -> StoreError {
        self.room(StoreError::at(&self.path, e))
    }

    fn room(&self, e: StoreError) -> StoreError {
        if !matches!(e, StoreError::NoSpace { .. }) {
            return e;
        }
        // At least the file's own room was short, so that much more than what is free would do.
        let allocated = self.file.stat().map_or(0, |s| s.allocated);
        e.with_room(self.id.len.saturating_sub(allocated), self.volume.free_bytes().unwrap_or(0))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flushing(&self) -> MutexGuard<'_, Flushing> {
        self.flushing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flush for Part {
    fn flush(&self) {
        // An error stays in the state, for the next write or the end.
        let _ = self.flush_batch(&mut self.flushing());
    }
}

/// Takes what is dirty out of what is there; its bytes.
fn discard(state: &mut State) -> u64 {
    state.came.remove(std::mem::take(&mut state.dirty));
    std::mem::take(&mut state.dirty_len)
}

impl Names {
    fn new(id: &FileId) -> Self {
        let stem = format!("{}-{}", id.root, id.len);
        Names { part: format!("{stem}.part"), journal: format!("{stem}.journal") }
    }
}

/// Opens or makes the file and takes its lock; true if it was made.
fn open_locked(volume: &dyn Volume, name: &str, path: &Path) -> Result<(Arc<dyn Storage>, bool), StoreError> {
    let at = |e| StoreError::at(path, e);
    for _ in 0..PART_OPEN_TRIES {
        let (file, fresh) = match volume.open_own(name).map_err(at)? {
            Some(file) => (file, false),
            None => match volume.create_own(name).map_err(at)? {
                Some(file) => (file, true),
                None => continue,
            },
        };
        if !file.try_lock().map_err(at)? {
            break;
        }
        // Whoever had the lock before may have put the file in place meanwhile: then this is no longer a partial one.
        if volume.inode_of_own(name).map_err(at)? == Some(file.stat().map_err(at)?.stamp.inode) {
            return Ok((file, fresh));
        }
    }
    Err(StoreError::Busy { path: path.to_path_buf() })
}

/// What the journal knows of the file; `None` if there is no journal, or none that fits.
fn resume(volume: &dyn Volume, name: &str, id: &FileId, part: &Stat) -> Result<Option<(Journal, Claims)>, StoreError> {
    let at = |e| StoreError::at(volume.path_of_own(name), e);
    let Some(file) = volume.open_own(name).map_err(at)? else { return Ok(None) };
    match Journal::resume(file, id, part).map_err(at)? {
        Ok(kept) => Ok(Some(kept)),
        Err(misfit) => {
            info!("journal discarded file={id} reason=\"{misfit}\"");
            discard_journal(volume, name)?;
            Ok(None)
        }
    }
}

/// Removes a journal for good before the file gets the length at which a journal counts: a new file may have the inode
/// number of the one that the journal was written for.
fn discard_journal(volume: &dyn Volume, name: &str) -> Result<(), StoreError> {
    let removed = volume.remove_own(name).and_then(|was| if was { volume.sync_own() } else { Ok(()) });
    removed.map_err(|e| StoreError::at(volume.path_of_own(name), e))
}

/// Gives the file its length and, where possible, its room on the disk.
fn reserve(volume: &dyn Volume, file: &dyn Storage, path: &Path, len: u64, stat: Stat) -> Result<(), StoreError> {
    let at = |e| StoreError::at(path, e);
    if stat.len > len {
        file.set_len(len).map_err(at)?;
    }
    let needed = len.saturating_sub(stat.allocated);
    let free = volume.free_bytes().map_err(at)?;
    if needed > free {
        return Err(StoreError::NoSpace { path: path.to_path_buf(), needed, free });
    }
    if stat.len == len && needed == 0 {
        return Ok(());
    }
    file.reserve(len).map_err(|e| at(e).with_room(needed, volume.free_bytes().unwrap_or(free)))
}

#[cfg(test)]
#[path = "part_tests.rs"]
mod tests;
