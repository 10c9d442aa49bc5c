//! Hashing on all processors: many small files side by side, and the chunks of a large file side by side.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::content::{ChunkIndex, Digest, FileId, Geometry, RelPath, Root, Stamp, merkle};
use crate::limits::{BLOCK_LEN, READ_LEN};
use crate::share::limits::{HASH_BUFFERS_LEN, HASH_QUEUE_FILES, HASH_TURN_FILES, HASH_TURN_LEN};
use crate::store::{Beneath, Hashed, Indexed, stamp_of};

/// A file to hash, and the state in which it must be found before and after.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) path: RelPath,
    pub(super) len: u64,
    pub(super) stamp: Stamp,
}

/// What came of a file.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its digests, read while it was in the state of its job.
    Hashed(Hashed),
    /// It is not, or did not stay, in the state of its job.
    Changed(RelPath),
    /// It cannot be read.
    Unreadable(RelPath, io::Error),
}

/// A pool of its own with a queue in front: only a few turns are handed to the pool at a time, so that a new small
/// file does not wait behind a huge one.
pub(super) struct Hasher {
    pool: Option<ThreadPool>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    shared: Arc<Shared>,
    small: VecDeque<Job>,
    large: VecDeque<Job>,
    /// The large file whose chunks are handed out, and the first chunk that was not.
    current: Option<(Arc<Large>, u32)>,
    /// Whether the next turn belongs to a large file, if there is one.
    large_next: bool,
    /// Turns that the pool has, and the most that it gets.
    in_flight: usize,
    in_flight_max: usize,
    done: Receiver<Vec<Outcome>>,
}

struct Shared {
    dir: Arc<Beneath>,
    bytes: Arc<AtomicU64>,
    stop: AtomicBool,
    buffer_len: usize,
    done: Sender<Vec<Outcome>>,
}

/// A file whose chunks are hashed by several threads.
struct Large {
    job: Job,
    geometry: Geometry,
    layer: Mutex<Vec<Digest>>,
    chunks_left: AtomicU32,
    /// The first thing that went wrong; the turns after it do nothing.
    failure: Mutex<Option<Failure>>,
}

enum Failure {
    Changed,
    Unreadable(io::Error),
}

impl Hasher {
    /// Starts one thread a processor. `bytes` counts what is hashed.
    pub(super) fn start(dir: Arc<Beneath>, bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get());
        let in_flight_max = 2 * count;
        // As many places as turns, so that no thread ever waits to report.
        let (sender, done) = bounded(in_flight_max);
        let buffer_len = (HASH_BUFFERS_LEN / count / BLOCK_LEN * BLOCK_LEN).clamp(BLOCK_LEN, READ_LEN);
        let shared = Arc::new(Shared { dir, bytes, stop: AtomicBool::new(false), buffer_len, done: sender });
        let threads = Arc::new(Mutex::new(Vec::new()));
        let joined = threads.clone();
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("gpb-hash-{i}"))
            .spawn_handler(move |thread| {
                let named = std::thread::Builder::new().name(thread.name().unwrap_or("gpb-hash").into());
                let handle = named.spawn(|| thread.run())?;
                joined.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
                Ok(())
            })
            .build()
            .map_err(io::Error::other)?;
        Ok(Hasher {
            pool: Some(pool),
            threads,
            shared,
            small: VecDeque::new(),
            large: VecDeque::new(),
            current: None,
            large_next: false,
            in_flight: 0,
            in_flight_max,
            done,
        })
    }

    /// Lets `job` be hashed after those that wait already.
    pub(super) fn queue(&mut self, job: Job) {
        if job.len > HASH_TURN_LEN { &mut self.large } else { &mut self.small }.push_back(job);
    }

    /// Files that wait or are being hashed, the latter counted by turns.
    pub(super) fn pending(&self) -> usize {
        self.small.len() + self.large.len() + self.in_flight + usize::from(self.current.is_some())
    }

    /// Whether so many files wait that whoever looks for more should let them be hashed first.
    pub(super) fn is_full(&self) -> bool {
        self.small.len().max(self.large.len()) >= HASH_QUEUE_FILES
    }

    /// Forgets all files that wait, because the directory is gone or another one.
    pub(super) fn clear(&mut self) {
        // Where it is gone there is nothing to open; it is looked for again when it is back.
        let _ = self.shared.dir.refresh();
        self.small = VecDeque::new();
        self.large = VecDeque::new();
        self.current = None;
    }

    /// Where results arrive; each must be given to [`Hasher::took`].
    pub(super) fn done(&self) -> Receiver<Vec<Outcome>> {
        self.done.clone()
    }

    /// A result was taken: there is room for another turn.
    pub(super) fn took(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Hands turns to the pool until it has enough.
    pub(super) fn pump(&mut self) {
        let Some(pool) = &self.pool else { return };
        while self.in_flight < self.in_flight_max {
            if self.current.is_none() {
                self.current = self.large.pop_front().map(|job| (Arc::new(Large::new(job)), 0));
            }
            let shared = self.shared.clone();
            self.large_next = !self.large_next;
            match &mut self.current {
                Some((large, next)) if self.large_next || self.small.is_empty() => {
                    let (large, first) = (large.clone(), *next);
                    let count = (HASH_TURN_LEN / large.geometry.chunk_len()).max(1) as u32;
                    let end = first.saturating_add(count).min(large.geometry.chunk_count());
                    *next = end;
                    if end == large.geometry.chunk_count() {
                        self.current = None;
                    }
                    pool.spawn(move || shared.report(|s| s.chunks_of(&large, first, end).into_iter().collect()));
                }
                _ => {
                    let files = take_turn(&mut self.small);
                    if files.is_empty() {
                        return;
                    }
                    pool.spawn(move || shared.report(|s| s.files(files)));
                }
            }
            self.in_flight += 1;
        }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.pool = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Large {
    fn new(job: Job) -> Self {
        let geometry = Geometry::new(job.len);
        let count = geometry.chunk_count();
        let layer = Mutex::new(vec![Digest::ZERO; count as usize]);
        Large { job, geometry, layer, chunks_left: AtomicU32::new(count), failure: Mutex::new(None) }
    }
}

impl Shared {
    fn report(&self, run: impl FnOnce(&Self) -> Vec<Outcome>) {
        let outcomes = catch_unwind(AssertUnwindSafe(|| run(self))).unwrap_or_else(|_| {
            log::error!("hashing failed for a turn of files, a later scan tries again");
            Vec::new()
        });
        let _ = self.done.send(outcomes);
    }

    /// Reads as many files as the buffer holds and hashes them together; a larger one is hashed by itself.
    fn files(&self, jobs: Vec<Job>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut read: Vec<(Job, Range<usize>)> = Vec::new();
        for job in jobs {
            if job.len > self.buffer_len as u64 || Geometry::new(job.len).needs_layer() {
                // It needs the buffer for itself.
                self.hash_read(&mut read, &mut outcomes);
                outcomes.push(self.whole_file(job));
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

    fn read_whole(&self, job: &Job, into: Range<usize>) -> Result<(), Failure> {
        let file = self.open(job)?;
        self.with_scratch(|s| read_exact(&file, &mut s.buffer[into], 0))?;
        if is_unchanged(&file, job) { Ok(()) } else { Err(Failure::Changed) }
    }

    fn hash_read(&self, read: &mut Vec<(Job, Range<usize>)>, outcomes: &mut Vec<Outcome>) {
        let roots = self.with_scratch(|s| {
            let contents: Vec<&[u8]> = read.iter().map(|(_, range)| &s.buffer[range.clone()]).collect();
            merkle::roots_of(&contents)
        });
        for ((job, _), root) in read.drain(..).zip(roots) {
            self.bytes.fetch_add(job.len, Ordering::Relaxed);
            outcomes.push(job.hashed(root, Vec::new()));
        }
    }

    fn whole_file(&self, job: Job) -> Outcome {
        match self.hash_whole(&job) {
            Ok((root, layer)) => job.hashed(root, layer),
            Err(failure) => failure.of(job.path),
        }
    }

    fn hash_whole(&self, job: &Job) -> Result<(Digest, Vec<Digest>), Failure> {
        let file = self.open(job)?;
        let geometry = Geometry::new(job.len);
        let found = if geometry.needs_layer() {
            let mut layer = Vec::with_capacity(geometry.chunk_count() as usize);
            self.hash_chunks(&file, &geometry, geometry.chunks(), |digest| layer.push(digest))?;
            (merkle::root_of_layer(&layer, geometry.chunk_height()), layer)
        } else {
            let root = self.with_scratch(|s| {
                s.read(&file, 0, job.len)?;
                Ok::<_, Failure>(s.blocks.finish_root())
            })?;
            (root, Vec::new())
        };
        self.bytes.fetch_add(job.len, Ordering::Relaxed);
        if is_unchanged(&file, job) { Ok(found) } else { Err(Failure::Changed) }
    }

    /// Hashes chunks `first .. end`; whoever hashes the last one of the file ends it.
    fn chunks_of(&self, large: &Large, first: u32, end: u32) -> Option<Outcome> {
        let failed = |large: &Large| large.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !failed(large)
            && let Err(failure) = self.hash_turn(large, first, end)
        {
            *large.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
        if large.chunks_left.fetch_sub(end - first, Ordering::AcqRel) > end - first {
            return None;
        }
        if let Some(failure) = large.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Some(failure.of(large.job.path.clone()));
        }
        let layer = std::mem::take(&mut *large.layer.lock().unwrap_or_else(PoisonError::into_inner));
        let root = merkle::root_of_layer(&layer, large.geometry.chunk_height());
        Some(large.job.clone().hashed(root, layer))
    }

    /// Each turn opens the file for itself: the system reads ahead for an open file, not for a thread. The state of
    /// the file is the same before and after each turn, so it did not change between them either.
    fn hash_turn(&self, large: &Large, first: u32, end: u32) -> Result<(), Failure> {
        let file = self.open(&large.job)?;
        let mut digests = Vec::with_capacity((end - first) as usize);
        let chunks = (first..end).filter_map(|i| large.geometry.chunk(i));
        self.hash_chunks(&file, &large.geometry, chunks, |digest| digests.push(digest))?;
        if !is_unchanged(&file, &large.job) {
            return Err(Failure::Changed);
        }
        let span =
            (end as u64 * large.geometry.chunk_len()).min(large.job.len) - first as u64 * large.geometry.chunk_len();
        self.bytes.fetch_add(span, Ordering::Relaxed);
        let mut layer = large.layer.lock().unwrap_or_else(PoisonError::into_inner);
        layer[first as usize..first as usize + digests.len()].copy_from_slice(&digests);
        Ok(())
    }

    fn hash_chunks(
        &self,
        file: &File,
        geometry: &Geometry,
        chunks: impl Iterator<Item = ChunkIndex>,
        mut each: impl FnMut(Digest),
    ) -> Result<(), Failure> {
        let height = geometry.chunk_height();
        // Where the next bytes are that do not lie in a hole.
        let mut data_from = 0;
        self.with_scratch(|scratch| {
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
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Failure::Changed);
                }
                scratch.read(file, span.offset, span.len as u64)?;
                each(scratch.blocks.finish_chunk(height));
            }
            Ok(())
        })
    }

    fn open(&self, job: &Job) -> Result<File, Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::Changed);
        }
        match self.dir.open_file(job.path.as_str()) {
            Ok((file, meta)) if meta.len() == job.len && stamp_of(&meta) == job.stamp => Ok(file),
            Ok(_) => Err(Failure::Changed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::Changed),
            Err(e) => Err(Failure::Unreadable(e)),
        }
    }

    fn with_scratch<R>(&self, run: impl FnOnce(&mut Scratch) -> R) -> R {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.buffer.resize(self.buffer_len, 0);
            scratch.blocks.clear();
            run(scratch)
        })
    }
}

/// What a hashing thread uses again for every file.
#[derive(Default)]
struct Scratch {
    buffer: Vec<u8>,
    blocks: merkle::Blocks,
}

impl Scratch {
    fn read(&mut self, file: &File, mut offset: u64, len: u64) -> Result<(), Failure> {
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

impl Job {
    fn hashed(self, root: Digest, layer: Vec<Digest>) -> Outcome {
        let id = FileId { root: Root(root), len: self.len };
        Outcome::Hashed(Hashed { path: self.path, indexed: Indexed { id, stamp: self.stamp }, layer })
    }
}

impl Failure {
    fn of(self, path: RelPath) -> Outcome {
        match self {
            Failure::Changed => Outcome::Changed(path),
            Failure::Unreadable(e) => Outcome::Unreadable(path, e),
        }
    }
}

fn read_exact(file: &File, into: &mut [u8], offset: u64) -> Result<(), Failure> {
    file.read_exact_at(into, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Failure::Changed,
        _ => Failure::Unreadable(e),
    })
}

fn take_turn(queue: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut count, mut len) = (0, 0);
    while count < queue.len().min(HASH_TURN_FILES) && len < HASH_TURN_LEN {
        len += queue[count].len;
        count += 1;
    }
    let turn = queue.drain(..count).collect();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    turn
}

fn is_unchanged(file: &File, job: &Job) -> bool {
    file.metadata().is_ok_and(|m| m.len() == job.len && stamp_of(&m) == job.stamp)
}

/// The first offset from `offset` on that may hold other bytes than zeros. File systems that know no holes say
/// `offset`.
fn next_data(file: &File, offset: u64, len: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(at) => at,
        Err(rustix::io::Errno::NXIO) => len,
        Err(_) => offset,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn job(dir: &std::path::Path, name: &str) -> Job {
        let meta = fs::metadata(dir.join(name)).unwrap();
        Job { path: RelPath::new(name).unwrap(), len: meta.len(), stamp: stamp_of(&meta) }
    }

    fn hash_all(dir: &std::path::Path, jobs: Vec<Job>) -> (Vec<Outcome>, u64) {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut hasher = Hasher::start(Arc::new(Beneath::open(dir).unwrap()), bytes.clone()).unwrap();
        jobs.into_iter().for_each(|j| hasher.queue(j));
        let mut outcomes = Vec::new();
        while hasher.pending() > 0 {
            hasher.pump();
            outcomes.extend(hasher.done().recv_timeout(Duration::from_secs(60)).unwrap());
            hasher.took();
        }
        (outcomes, bytes.load(Ordering::Relaxed))
    }

    #[test]
    fn whole_and_split_files_have_the_roots_of_their_bytes() {
        let tmp = tempfile::tempdir().unwrap();
        let lens = [0, 1, 16_384, 262_144, 262_145, 5_000_000, 16 << 20, (16 << 20) + 1, (40 << 20) + 77];
        for len in lens {
            let content: Vec<u8> = (0..len).map(|i| (i % 251 + i / 70_000) as u8).collect();
            fs::write(tmp.path().join(len.to_string()), content).unwrap();
        }
        let jobs = lens.iter().map(|l| job(tmp.path(), &l.to_string())).collect();
        let (outcomes, bytes) = hash_all(tmp.path(), jobs);
        assert_eq!((outcomes.len(), bytes), (lens.len(), lens.iter().sum::<usize>() as u64));
        for outcome in outcomes {
            let Outcome::Hashed(h) = outcome else { panic!("{outcome:?}") };
            let content = fs::read(tmp.path().join(h.path.as_str())).unwrap();
            assert_eq!(h.indexed.id.root.0, merkle::root_of_bytes(&content), "{}", h.path);
            let g = Geometry::new(content.len() as u64);
            assert_eq!(h.layer.len(), if g.needs_layer() { g.chunk_count() as usize } else { 0 });
        }
    }

    #[test]
    fn holes_are_not_read_but_count_as_zeros() {
        let tmp = tempfile::tempdir().unwrap();
        let file = fs::File::create(tmp.path().join("sparse")).unwrap();
        file.set_len((20 << 20) + 5).unwrap();
        file.write_all_at(b"in the middle", 9_000_000).unwrap();
        let content = fs::read(tmp.path().join("sparse")).unwrap();
        fs::File::create(tmp.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
        let (outcomes, bytes) = hash_all(tmp.path(), vec![job(tmp.path(), "sparse"), job(tmp.path(), "huge")]);
        assert_eq!(bytes, (20 << 20) + 5 + (1 << 40));
        for outcome in outcomes {
            let Outcome::Hashed(h) = outcome else { panic!("{outcome:?}") };
            match h.path.as_str() {
                "sparse" => assert_eq!(h.indexed.id.root.0, merkle::root_of_bytes(&content)),
                // 2^40 bytes are a full tree of 2^26 blocks.
                _ => assert_eq!(h.indexed.id.root.0, merkle::zero_chunk_digest(26)),
            }
        }
    }

    #[test]
    fn a_file_in_another_state_is_not_hashed() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("a"), "x").unwrap();
        fs::File::create(tmp.path().join("big")).unwrap().set_len(64 << 20).unwrap();
        let mut jobs = vec![job(tmp.path(), "a"), job(tmp.path(), "big")];
        jobs.iter_mut().for_each(|j| j.stamp.ctime_ns -= 1);
        jobs.push(Job { path: RelPath::new("none").unwrap(), ..jobs[0].clone() });
        let (outcomes, bytes) = hash_all(tmp.path(), jobs);
        assert_eq!((outcomes.len(), bytes), (3, 0));
        assert!(outcomes.iter().all(|o| matches!(o, Outcome::Changed(_))));
    }
}
