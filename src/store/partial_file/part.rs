//! What a partial file shares with the thread that flushes it: the open file, its journal, and
//! which chunks are where.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use log::{info, warn};

use crate::chain::Chain;
use crate::content::{Bitfield, ChunkIndex, FileId, Stamp};
use crate::store::StoreError;
use crate::store::error::again;
use crate::store::flusher::{Budget, ByOrigin, Flush};
use crate::store::journal::Journal;
use crate::store::limits::{JOURNAL_SYNC_LEN, SETTLE_TRIES, TICK_MAX};
use crate::store::partial_file::doubt::Doubt;
use crate::store::storage::{Storage, Volume, explain_full};
use crate::swarm::Arrivals;
use crate::sync::lock;

/// An open, locked partial file.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: FileId,
    pub(super) volume: Arc<dyn Volume>,
    pub(super) budget: Arc<Budget>,
    pub(super) file: Arc<dyn Storage>,
    pub(super) inode: u64,
    pub(super) names: PartNames,
    pub(super) path: PathBuf,
    /// It was opened for readers, and may have a mark.
    pub(super) is_read: bool,
    pub(super) doubt: Doubt,
    pub(super) state: Mutex<PartState>,
    /// Held over the I/O of a flush: flushes and the end come one after the other. Writers never
    /// take it.
    pub(super) flushing: Mutex<Flushing>,
}

/// Which chunks are where.
#[derive(Debug)]
pub(super) struct PartState {
    /// The chunks that are verified and written.
    pub(super) came: Arrivals,
    /// Chunks that the journal claims and that are not checked yet, the next one last.
    pub(super) unchecked: Vec<ChunkIndex>,
    /// Number of chunks that are being checked.
    checking: u32,
    /// Missing chunks that an older version of the file may have, the next one last.
    pub(super) reusable: Vec<ChunkIndex>,
    /// In `came`, but not durable.
    pub(super) dirty: Vec<ChunkIndex>,
    pub(super) dirty_len: ByOrigin,
    /// Whether the thread that flushes has this file before it.
    pub(super) queued: bool,
    /// Why nothing more can be written.
    failed: Option<io::Error>,
    /// In place, or no longer used.
    pub(super) closed: bool,
}

/// What only flushes use.
#[derive(Debug)]
pub(super) struct Flushing {
    /// Made with the first record, so a short download never has one.
    journal: Option<Journal>,
    unsynced_len: u64,
    /// The names of the file and of its journal are durable.
    is_named: bool,
}

/// The own names of a partial file.
#[derive(Debug)]
pub(in crate::store) struct PartNames {
    pub(in crate::store) part: String,
    pub(in crate::store) journal: String,
    /// The mark of a part that is read only: it is there while no download has taken it over.
    pub(in crate::store) mark: String,
}

/// Chunks that became durable together.
pub(super) struct Batch {
    chunks: Vec<ChunkIndex>,
    pub(super) len: ByOrigin,
}

impl Part {
    /// Makes what is written durable, and the journal too, which is sealed unless there is a doubt. Without a seal
    /// all of it is checked when the file is resumed.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let mut flushing = self.flushing();
        self.flush_batch(&mut flushing)?;
        if !self.doubt.is_any() {
            self.seal(&mut flushing).map_err(|e| StoreError::at(self.volume.path_of_own(&self.names.journal), e))?;
        }
        self.sync_journal(&mut flushing)
    }

    /// Ends the use of the file: nothing more is written or journaled, and others may open it.
    pub(super) fn close(&self) {
        let _flushing = self.flushing();
        let mut state = self.state();
        let len = state.discard_dirty();
        let was_open = !std::mem::replace(&mut state.closed, true);
        drop(state);
        self.budget.put_back(len);
        if was_open {
            self.budget.dequeue(self.inode);
            self.file.unlock();
        }
    }

    /// Removes the file, unless its name means another one by now.
    pub(super) fn remove(&self) {
        let _flushing = self.flushing();
        let is_own = self.volume.inode_of_own(&self.names.part).is_ok_and(|inode| inode == Some(self.inode));
        if is_own && let Err(e) = self.volume.remove_own(&self.names.part) {
            info!("empty partial file not removed file={} error=\"{}\"", self.id, Chain(&e));
        }
        // A journal can only be one that was written before.
        let _ = self.volume.remove_own(&self.names.journal);
        self.volume.tidy();
    }

    /// Ends the use of the file after it got its final name.
    pub(super) fn end(&self, flushing: &mut Flushing) {
        self.state().closed = true;
        self.budget.dequeue(self.inode);
        flushing.journal = None;
        // A journal that stays behind does not fit any later file: a fresh one removes it first.
        if let Err(e) = self.volume.remove_own(&self.names.journal) {
            warn!("journal not removed file={} error=\"{}\"", self.id, Chain(&e));
        }
        self.file.unlock();
        self.volume.tidy();
    }

    /// Syncs the file, then journals the chunks that were written before the sync.
    pub(super) fn flush_batch(&self, flushing: &mut Flushing) -> Result<(), StoreError> {
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

    /// Takes what is dirty and syncs the file. After an error only journaled chunks can be trusted:
    /// a failed write-back, even of a chunk written during the sync, may have been reported by this
    /// sync and by no later one.
    pub(super) fn sync_file(&self) -> Result<Batch, StoreError> {
        let batch = {
            let mut state = self.state();
            Batch { chunks: std::mem::take(&mut state.dirty), len: std::mem::take(&mut state.dirty_len) }
        };
        let synced = self.file.sync();
        self.doubt.look(&*self.volume);
        match synced {
            Ok(()) => Ok(batch),
            Err(e) => Err(self.fail(batch, e)),
        }
    }

    /// Appends durable chunks to the journal, which is created with the first of them.
    pub(super) fn journal(&self, flushing: &mut Flushing, batch: Batch) -> Result<(), StoreError> {
        match self.append(flushing, &batch.chunks) {
            Ok(()) => {
                flushing.unsynced_len += batch.len.iter().sum::<u64>();
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
        // Opening removed a journal that does not fit.
        let file = self.volume.create_own(&self.names.journal)?.ok_or(io::ErrorKind::AlreadyExists)?;
        let mut journal = Journal::create(file, &self.id, self.inode)?;
        journal.append(chunks)?;
        flushing.journal = Some(journal);
        // The first record and the names of both files: without them a power loss would cost all
        // that came until the next sync of the journal.
        self.sync_records(flushing)
    }

    /// Marks in the journal that the file is about to replace another one, so that what a cut-off exchange
    /// leaves under its name is told from a copy of it. Best effort: the exchange itself is one step.
    pub(super) fn note_placing(&self, flushing: &mut Flushing) {
        let created = || {
            let file = self.volume.create_own(&self.names.journal)?.ok_or(io::ErrorKind::AlreadyExists)?;
            Journal::create(file, &self.id, self.inode)
        };
        let journal = flushing.journal.take().map_or_else(created, Ok);
        let marked = journal.and_then(|mut journal| journal.note_placing().map(|()| journal));
        match marked {
            Ok(journal) => flushing.journal = Some(journal),
            Err(e) => info!("placing not marked file={} error=\"{}\"", self.id, Chain(&e)),
        }
    }

    fn sync_journal(&self, flushing: &mut Flushing) -> Result<(), StoreError> {
        match flushing.unsynced_len {
            0 => Ok(()),
            _ => {
                self.sync_records(flushing).map_err(|e| StoreError::at(self.volume.path_of_own(&self.names.journal), e))
            }
        }
    }

    /// Makes all records durable, and once the names: of a file that a killed process left they may not
    /// be.
    fn sync_records(&self, flushing: &mut Flushing) -> io::Result<()> {
        let Some(journal) = &flushing.journal else { return Ok(()) };
        journal.sync()?;
        if !flushing.is_named {
            self.volume.sync_own()?;
            flushing.is_named = true;
        }
        flushing.unsynced_len = 0;
        Ok(())
    }

    /// Seals the journal, unless a chunk is not durable or not checked: the seal says exactly what
    /// the file holds. A write that runs meanwhile gives the file other times than the seal has,
    /// which then proves nothing.
    fn seal(&self, flushing: &mut Flushing) -> io::Result<()> {
        let Some(journal) = &mut flushing.journal else { return Ok(()) };
        let Some(stamp) = self.settled_stamp()? else { return Ok(()) };
        let have = {
            let state = self.state();
            if state.closed || !state.is_settled() {
                return Ok(());
            }
            state.came.have().clone()
        };
        if journal.seal(stamp, &have)? { self.sync_records(flushing) } else { Ok(()) }
    }

    /// The state of the file, once a later write is sure to change its times. The kernel stamps
    /// files by a clock that advances in ticks of 1 to 10 ms, so a write in the tick of the last
    /// one leaves no trace: the last one has to be older than [`TICK_MAX`]. `None` if it seems to
    /// lie in the future, if another program keeps writing, or if the file system keeps whole
    /// seconds only, in which a later write could hide; such a file is checked when it is resumed.
    fn settled_stamp(&self) -> io::Result<Option<Stamp>> {
        for _ in 0..SETTLE_TRIES {
            let stat = self.file.stat()?;
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            let changed = Duration::from_nanos(u64::try_from(stat.stamp.ctime_ns).unwrap_or(0));
            if changed.subsec_nanos() == 0 {
                break;
            }
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
        state.dirty_len = [state.dirty_len[0] + batch.len[0], state.dirty_len[1] + batch.len[1]];
        let len = state.discard_dirty();
        state.failed = Some(again(&e));
        drop(state);
        self.budget.put_back(len);
        // The next write or the end reports the error.
        info!("batch discarded file={} chunks={}", self.id, batch.chunks.len());
        self.error(e)
    }

    /// Checks that the own name still means the open file, at its full length. What another program
    /// left in its place must not get the final name.
    pub(super) fn check_same_file(&self) -> Result<(), StoreError> {
        let stat = self.file.stat().map_err(|e| self.error(e))?;
        let inode = self.volume.inode_of_own(&self.names.part).map_err(|e| self.error(e))?;
        if stat.len == self.id.len && inode == Some(self.inode) {
            return Ok(());
        }
        Err(self.error(io::Error::other("the partial file was changed or removed by another program")))
    }

    /// The state, if nothing failed before.
    pub(super) fn usable(&self) -> Result<MutexGuard<'_, PartState>, StoreError> {
        let state = self.state();
        self.refuse_failed(&state)?;
        Ok(state)
    }

    pub(super) fn refuse_failed(&self, state: &PartState) -> Result<(), StoreError> {
        state.failed.as_ref().map_or(Ok(()), |e| Err(self.error(again(e))))
    }

    pub(super) fn error(&self, e: io::Error) -> StoreError {
        // At least the file's own room was short.
        let allocated = || self.file.stat().map_or(0, |s| s.allocated);
        match StoreError::at(&self.path, e) {
            full @ StoreError::NoSpace { .. } => {
                explain_full(&*self.volume, full, self.id.len.saturating_sub(allocated()))
            }
            other => other,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PartState> {
        lock(&self.state)
    }

    pub(super) fn flushing(&self) -> MutexGuard<'_, Flushing> {
        lock(&self.flushing)
    }
}

impl Flushing {
    pub(super) fn new(journal: Option<Journal>) -> Self {
        // A process that was killed may have left records that are not durable.
        let unsynced_len = u64::from(journal.is_some());
        Flushing { journal, unsynced_len, is_named: false }
    }
}

impl PartState {
    /// The chunks `have` are there, and `unchecked` may be, in order.
    pub(super) fn new(have: Bitfield, mut unchecked: Vec<ChunkIndex>) -> Self {
        unchecked.reverse();
        PartState {
            came: Arrivals::new(have),
            unchecked,
            checking: 0,
            reusable: Vec::new(),
            dirty: Vec::new(),
            dirty_len: ByOrigin::default(),
            queued: false,
            failed: None,
            closed: false,
        }
    }

    /// The next chunk to check, for one caller alone, which then calls [`checked`](Self::checked).
    pub(super) fn next_unchecked(&mut self) -> Option<ChunkIndex> {
        let next = self.unchecked.pop()?;
        self.checking += 1;
        Some(next)
    }

    /// The result for a chunk from [`next_unchecked`](Self::next_unchecked). A right one counts as
    /// written and durable: the journal claims it.
    pub(super) fn checked(&mut self, index: ChunkIndex, right: bool) {
        self.checking -= 1;
        if right {
            self.came.insert(index);
        }
    }

    /// Whether every chunk in `came` is durable, and no claim of the journal is left to check.
    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.unchecked.is_empty() && self.checking == 0
    }

    /// Takes what is not durable out of what is there; its bytes.
    fn discard_dirty(&mut self) -> ByOrigin {
        self.came.remove(std::mem::take(&mut self.dirty));
        std::mem::take(&mut self.dirty_len)
    }
}

impl PartNames {
    pub(in crate::store) fn new(id: &FileId) -> Self {
        let stem = format!("{}-{}", id.root, id.len);
        let [part, journal, mark] = ["part", "journal", "read"].map(|kind| format!("{stem}.{kind}"));
        PartNames { part, journal, mark }
    }
}

impl Flush for Part {
    fn flush(&self) {
        // An error stays in the state, for the next write or the end.
        let _ = self.flush_batch(&mut self.flushing());
    }
}
