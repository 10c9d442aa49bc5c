//! Reading files and hashing them, one turn at a time.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam::channel::Sender;

use crate::content::{ChunkIndex, Digest, FileId, Geometry, Marks, RelPath, Root, Stamp, merkle};
use crate::limits::{BLOCK_LEN, READ_LEN};
use crate::share::limits::{HASH_BUFFERS_LEN, HASH_TURN_LEN};
use crate::store::{Hashed, Indexed, ReadRoot, stamp_of};
use crate::sync::lock;

/// A file to hash, and the state in which it must be found before and after.
#[derive(Debug, Clone)]
pub(super) struct HashJob {
    pub(super) path: RelPath,
    pub(super) len: u64,
    pub(super) stamp: Stamp,
    pub(super) marks: Marks,
}

/// The outcome of hashing a file.
#[derive(Debug)]
pub(super) enum HashOutcome {
    /// Its digests, read while it was in the state of its job.
    Hashed(Hashed),
    /// It is not, or did not stay, in the state of its job.
    Changed(RelPath),
    /// It cannot be read.
    Unreadable(RelPath, io::Error),
}

enum HashFailure {
    Changed,
    Unreadable(io::Error),
}

/// What the hashing threads share.
pub(super) struct FileHasher {
    dir: Arc<ReadRoot>,
    bytes: Arc<AtomicU64>,
    is_stopped: AtomicBool,
    buffer_len: usize,
    done: Sender<Vec<HashOutcome>>,
}

/// A file whose chunks are hashed by several threads.
pub(super) struct SplitFile {
    job: HashJob,
    geometry: Geometry,
    layer: Mutex<Vec<Digest>>,
    chunks_left: AtomicU32,
    /// The first failure. It ends the work on the file.
    failure: Mutex<Option<HashFailure>>,
}

impl FileHasher {
    /// Hashes files of `dir` on `threads` threads, which share the memory for reading. Outcomes go
    /// to `done`.
    pub(super) fn new(
        dir: Arc<ReadRoot>,
        bytes: Arc<AtomicU64>,
        threads: usize,
        done: Sender<Vec<HashOutcome>>,
    ) -> Self {
        let buffer_len = (HASH_BUFFERS_LEN / threads / BLOCK_LEN * BLOCK_LEN).clamp(BLOCK_LEN, READ_LEN);
        FileHasher { dir, bytes, is_stopped: AtomicBool::new(false), buffer_len, done }
    }

    /// Makes all turns end soon, without an outcome that counts.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Opens the directory that has the path now.
    pub(super) fn refresh(&self) {
        // Without a directory there is nothing to open; the next scan comes when it is back.
        let _ = self.dir.refresh();
    }

    /// Runs a turn and sends its outcomes. A panic costs the turn, not the thread, and the memory of a turn is given back:
    /// most threads have nothing to hash most of the time.
    pub(super) fn report(&self, run: impl FnOnce(&Self) -> Vec<HashOutcome>) {
        let outcomes = catch_unwind(AssertUnwindSafe(|| run(self))).unwrap_or_else(|_| {
            log::error!("hashing failed for a turn of files, a later scan tries again");
            Vec::new()
        });
        drop(SCRATCH.take());
        let _ = self.done.send(outcomes);
    }

    // ---- small files ----

    /// Reads files until the buffer is full and hashes them together. A file that does not fit is
    /// hashed alone.
    pub(super) fn hash_files(&self, jobs: Vec<HashJob>) -> Vec<HashOutcome> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut read: Vec<(HashJob, Range<usize>)> = Vec::new();
        for job in jobs {
            if job.len > self.buffer_len as u64 || Geometry::new(job.len).needs_layer() {
                // It needs the whole buffer.
                self.hash_read(&mut read, &mut outcomes);
                outcomes.push(self.hash_alone(job));
                continue;
            }
            let len = job.len as usize;
            let mut from = read.last().map_or(0, |(_, range)| range.end);
            if from + len > self.buffer_len {
                self.hash_read(&mut read, &mut outcomes);
                from = 0;
            }
            match self.read_whole(&job, from..from + len) {
                Ok(()) => read.push((job, from..from + len)),
                Err(failure) => outcomes.push(failure.of(job.path)),
            }
        }
        self.hash_read(&mut read, &mut outcomes);
        outcomes
    }

    fn read_whole(&self, job: &HashJob, into: Range<usize>) -> Result<(), HashFailure> {
        let file = self.open(job)?;
        self.with_scratch(|s| read_exact(&file, &mut s.buffer[into], 0))?;
        job.check_unchanged(&file)
    }

    fn hash_read(&self, read: &mut Vec<(HashJob, Range<usize>)>, outcomes: &mut Vec<HashOutcome>) {
        let roots = self.with_scratch(|s| {
            let contents: Vec<&[u8]> = read.iter().map(|(_, range)| &s.buffer[range.clone()]).collect();
            merkle::roots_of(&contents)
        });
        for ((job, _), root) in read.drain(..).zip(roots) {
            self.bytes.fetch_add(job.len, Ordering::Relaxed);
            outcomes.push(job.hashed(root, Vec::new()));
        }
    }

    fn hash_alone(&self, job: HashJob) -> HashOutcome {
        match self.hash_whole(&job) {
            Ok((root, layer)) => job.hashed(root, layer),
            Err(failure) => failure.of(job.path),
        }
    }

    fn hash_whole(&self, job: &HashJob) -> Result<(Digest, Vec<Digest>), HashFailure> {
        let file = self.open(job)?;
        let geometry = Geometry::new(job.len);
        let found = if geometry.needs_layer() {
            let mut layer = Vec::with_capacity(geometry.chunk_count() as usize);
            self.hash_chunks(&file, &geometry, geometry.chunks(), |digest| layer.push(digest))?;
            (merkle::root_of_layer(&layer, geometry.chunk_height()), layer)
        } else {
            let root = self.with_scratch(|s| {
                s.read(&file, 0, job.len)?;
                Ok::<_, HashFailure>(s.blocks.finish_root())
            })?;
            (root, Vec::new())
        };
        self.bytes.fetch_add(job.len, Ordering::Relaxed);
        job.check_unchanged(&file)?;
        Ok(found)
    }

    // ---- parts of a large file ----

    /// Hashes these chunks. The turn that hashes the last chunks of the file returns its outcome.
    pub(super) fn hash_part(&self, large: &SplitFile, chunks: Range<u32>) -> Option<HashOutcome> {
        let count = chunks.end - chunks.start;
        let has_failed = lock(&large.failure).is_some();
        if !has_failed && let Err(failure) = self.hash_turn(large, chunks) {
            *lock(&large.failure) = Some(failure);
        }
        if large.chunks_left.fetch_sub(count, Ordering::AcqRel) > count {
            return None;
        }
        if let Some(failure) = lock(&large.failure).take() {
            return Some(failure.of(large.job.path.clone()));
        }
        let layer = std::mem::take(&mut *lock(&large.layer));
        let root = merkle::root_of_layer(&layer, large.geometry.chunk_height());
        Some(large.job.clone().hashed(root, layer))
    }

    /// Each turn opens the file, since the system reads ahead for each open file, not for each
    /// thread. The state of the file is the same before and after each turn, so the file did not
    /// change between them either.
    fn hash_turn(&self, large: &SplitFile, chunks: Range<u32>) -> Result<(), HashFailure> {
        let file = self.open(&large.job)?;
        let mut digests = Vec::with_capacity(chunks.len());
        let indices = chunks.clone().filter_map(|i| large.geometry.chunk(i));
        self.hash_chunks(&file, &large.geometry, indices, |digest| digests.push(digest))?;
        large.job.check_unchanged(&file)?;
        let offset = |chunk: u32| (u64::from(chunk) * large.geometry.chunk_len()).min(large.job.len);
        self.bytes.fetch_add(offset(chunks.end) - offset(chunks.start), Ordering::Relaxed);
        let from = chunks.start as usize;
        lock(&large.layer)[from..from + digests.len()].copy_from_slice(&digests);
        Ok(())
    }

    // ---- common ----

    /// Hashes chunks in their order. A chunk that lies in a hole is not read: its digest is the one
    /// of zeros.
    fn hash_chunks(
        &self,
        file: &File,
        geometry: &Geometry,
        chunks: impl Iterator<Item = ChunkIndex>,
        mut each: impl FnMut(Digest),
    ) -> Result<(), HashFailure> {
        let height = geometry.chunk_height();
        // Where the next bytes are that do not lie in a hole.
        let mut data_from = 0;
        for index in chunks {
            let span = geometry.span(index);
            let end = span.offset + span.len as u64;
            if data_from <= span.offset {
                data_from = next_data(file, span.offset, geometry.len());
            }
            if end <= data_from && span.len as u64 == geometry.chunk_len() {
                each(merkle::zero_chunk_digest(height));
                continue;
            }
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(HashFailure::Changed);
            }
            // Only here, as a turn in a hole needs no buffer.
            each(self.with_scratch(|scratch| {
                scratch.read(file, span.offset, span.len as u64)?;
                Ok::<_, HashFailure>(scratch.blocks.finish_chunk(height))
            })?);
        }
        Ok(())
    }

    fn open(&self, job: &HashJob) -> Result<File, HashFailure> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err(HashFailure::Changed);
        }
        match self.dir.open_file(job.path.as_str()) {
            Ok((file, meta)) if meta.len() == job.len && stamp_of(&meta) == job.stamp => {
                job.check_end(&file)?;
                Ok(file)
            }
            Ok(_) => Err(HashFailure::Changed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(HashFailure::Changed),
            Err(e) => Err(HashFailure::Unreadable(e)),
        }
    }

    fn with_scratch<R>(&self, run: impl FnOnce(&mut HashScratch) -> R) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.buffer.resize(self.buffer_len, 0);
            scratch.blocks.clear();
            run(scratch)
        })
    }
}

impl SplitFile {
    pub(super) fn new(job: HashJob) -> Self {
        let geometry = Geometry::new(job.len);
        let count = geometry.chunk_count();
        let layer = Mutex::new(vec![Digest::ZERO; count as usize]);
        SplitFile { job, geometry, layer, chunks_left: AtomicU32::new(count), failure: Mutex::new(None) }
    }

    /// The chunks of the turn that begins with chunk `first`: about [`HASH_TURN_LEN`] bytes.
    pub(super) fn turn(&self, first: u32) -> Range<u32> {
        let count = (HASH_TURN_LEN / self.geometry.chunk_len()).max(1) as u32;
        first..first.saturating_add(count).min(self.geometry.chunk_count())
    }

    /// Whether no chunk follows the ones before `chunk`.
    pub(super) fn is_end(&self, chunk: u32) -> bool {
        chunk == self.geometry.chunk_count()
    }
}

impl HashJob {
    fn hashed(self, root: Digest, layer: Vec<Digest>) -> HashOutcome {
        let id = FileId { root: Root(root), len: self.len };
        HashOutcome::Hashed(Hashed {
            path: self.path,
            indexed: Indexed { id, stamp: self.stamp },
            marks: self.marks,
            layer,
        })
    }

    /// Refuses a file that holds more than its length. Files of `/proc` and `/sys` are made when they
    /// are read and have the length 0 or 4,096: what was hashed would not be what is in them.
    fn check_end(&self, file: &File) -> Result<(), HashFailure> {
        if !matches!(file.read_at(&mut [0], self.len), Ok(1)) {
            return Ok(());
        }
        self.check_unchanged(file)?;
        Err(HashFailure::Unreadable(io::Error::other("it holds more than its length says")))
    }

    fn check_unchanged(&self, file: &File) -> Result<(), HashFailure> {
        let is_unchanged = file.metadata().is_ok_and(|m| m.len() == self.len && stamp_of(&m) == self.stamp);
        if is_unchanged { Ok(()) } else { Err(HashFailure::Changed) }
    }
}

impl HashFailure {
    fn of(self, path: RelPath) -> HashOutcome {
        match self {
            HashFailure::Changed => HashOutcome::Changed(path),
            HashFailure::Unreadable(e) => HashOutcome::Unreadable(path, e),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<HashScratch> = RefCell::default();
}

/// Memory that a hashing thread uses again for each file of a turn.
#[derive(Default)]
struct HashScratch {
    buffer: Vec<u8>,
    blocks: merkle::Blocks,
}

impl HashScratch {
    fn read(&mut self, file: &File, mut offset: u64, len: u64) -> Result<(), HashFailure> {
        let end = offset + len;
        while offset < end {
            let run = (end - offset).min(self.buffer.len() as u64) as usize;
            read_exact(file, &mut self.buffer[..run], offset)?;
            self.blocks.push(&self.buffer[..run]);
            offset += run as u64;
        }
        Ok(())
    }
}

fn read_exact(file: &File, into: &mut [u8], offset: u64) -> Result<(), HashFailure> {
    file.read_exact_at(into, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => HashFailure::Changed,
        _ => HashFailure::Unreadable(e),
    })
}

/// The first offset from `offset` on that may hold other bytes than zeros. It is `offset` where the
/// file system does not report holes.
fn next_data(file: &File, offset: u64, len: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(at) => at,
        Err(rustix::io::Errno::NXIO) => len,
        Err(_) => offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: each hashing thread kept its buffer. Effect: a node that has hashed its files and rests took up to
    /// [`HASH_BUFFERS_LEN`] bytes more. Mend: the buffer lasts for a turn.
    #[test]
    fn a_thread_that_rests_holds_no_buffer() {
        let tmp = tempfile::tempdir().unwrap();
        let (sender, done) = crossbeam::channel::bounded(1);
        let files = FileHasher::new(Arc::new(ReadRoot::open(tmp.path()).unwrap()), Arc::default(), 1, sender);
        let held = || SCRATCH.with_borrow(|scratch| scratch.buffer.capacity());
        let mut in_turn = 0;
        files.report(|f| {
            let outcomes = f.hash_files(Vec::new());
            in_turn = held();
            outcomes
        });
        assert!(done.recv().unwrap().is_empty());
        assert!(in_turn > 0 && held() == 0, "{in_turn} bytes in the turn, {} after it", held());
    }
}
