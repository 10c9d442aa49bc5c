//! The queue of files to hash and the threads that hash them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam::channel::{Receiver, bounded};

use crate::runtime::BlockingPool;
use crate::share::hash_job::{FileHasher, HashJob, HashOutcome, SplitFile};
use crate::share::limits::{HASH_QUEUE_FILES, HASH_TURN_FILES, HASH_TURN_LEN};
use crate::store::ReadRoot;

/// Hashes on all processors: many small files side by side, and the chunks of a large file side by
/// side.
///
/// Files wait in queues in front of the threads, which have a few turns of work only. So a new
/// small file does not wait until a huge one is hashed.
pub(super) struct Hasher {
    threads: BlockingPool,
    files: Arc<FileHasher>,
    small: VecDeque<HashJob>,
    large: VecDeque<HashJob>,
    /// The large file whose chunks are handed out, and the first chunk that was not.
    current: Option<(Arc<SplitFile>, u32)>,
    /// Whether the next turn belongs to a large file, if there is one.
    is_large_next: bool,
    /// Turns that the threads have, and the most that they get.
    in_flight: usize,
    in_flight_max: usize,
    done: Receiver<Vec<HashOutcome>>,
}

impl Hasher {
    /// Starts one thread a processor. `bytes` counts what is hashed.
    pub(super) fn start(dir: Arc<ReadRoot>, bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get());
        let in_flight_max = 2 * count;
        // As many places as turns, so that no thread waits until its outcomes are taken.
        let (sender, done) = bounded(in_flight_max);
        let files = Arc::new(FileHasher::new(dir, bytes, count, sender));
        Ok(Hasher {
            threads: BlockingPool::started("gpb-hash", count)?,
            files,
            small: VecDeque::new(),
            large: VecDeque::new(),
            current: None,
            is_large_next: false,
            in_flight: 0,
            in_flight_max,
            done,
        })
    }

    /// Appends `job` to the queue of its size.
    pub(super) fn queue(&mut self, job: HashJob) {
        if job.len > HASH_TURN_LEN { &mut self.large } else { &mut self.small }.push_back(job);
    }

    /// Puts `job` before all others of its size.
    pub(super) fn queue_first(&mut self, job: HashJob) {
        if job.len > HASH_TURN_LEN { &mut self.large } else { &mut self.small }.push_front(job);
    }

    /// Files that wait or are being hashed, the latter counted by turns.
    pub(super) fn pending(&self) -> usize {
        self.small.len() + self.large.len() + self.in_flight + usize::from(self.current.is_some())
    }

    /// Whether [`HASH_QUEUE_FILES`] wait, so that a walk should pause.
    pub(super) fn is_full(&self) -> bool {
        self.small.len().max(self.large.len()) >= HASH_QUEUE_FILES
    }

    /// Drops all files that wait, because the directory is gone or another one.
    pub(super) fn clear(&mut self) {
        self.files.refresh();
        self.small = VecDeque::new();
        self.large = VecDeque::new();
        self.current = None;
    }

    /// Where outcomes arrive. Each one is confirmed by [`Hasher::took`].
    pub(super) fn done(&self) -> Receiver<Vec<HashOutcome>> {
        self.done.clone()
    }

    /// The outcomes of a turn were taken, so there is room for another turn.
    pub(super) fn took(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Hands turns to the threads until they have enough.
    pub(super) fn pump(&mut self) {
        while self.in_flight < self.in_flight_max {
            if self.current.is_none() {
                self.current = self.large.pop_front().map(|job| (Arc::new(SplitFile::new(job)), 0));
            }
            let files = self.files.clone();
            self.is_large_next = !self.is_large_next;
            let spawned = match &mut self.current {
                Some((large, next)) if self.is_large_next || self.small.is_empty() => {
                    let (large, chunks) = (large.clone(), large.turn(*next));
                    *next = chunks.end;
                    if large.is_end(chunks.end) {
                        self.current = None;
                    }
                    self.threads.spawn(move || files.report(|f| f.hash_part(&large, chunks).into_iter().collect()))
                }
                _ => {
                    let jobs = take_turn(&mut self.small);
                    if jobs.is_empty() {
                        return;
                    }
                    self.threads.spawn(move || files.report(|f| f.hash_files(jobs)))
                }
            };
            if let Err(e) = spawned {
                log::error!("a turn of files is not hashed, a later scan tries again error=\"{e}\"");
                return;
            }
            self.in_flight += 1;
        }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        // The drop of the pool then waits until each thread has ended its turn.
        self.files.stop();
    }
}

/// The small files of one turn: [`HASH_TURN_FILES`], or fewer if they have [`HASH_TURN_LEN`] bytes.
fn take_turn(queue: &mut VecDeque<HashJob>) -> Vec<HashJob> {
    let (mut count, mut len) = (0, 0);
    while count < queue.len().min(HASH_TURN_FILES) && len < HASH_TURN_LEN {
        len += queue[count].len;
        count += 1;
    }
    let turn = queue.drain(..count).collect();
    if queue.is_empty() {
        // Frees the memory of the many files that a first scan finds.
        *queue = VecDeque::new();
    }
    turn
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::content::{Geometry, RelPath, merkle};
    use crate::store::stamp_of;

    fn job(dir: &std::path::Path, name: &str) -> HashJob {
        let meta = fs::metadata(dir.join(name)).unwrap();
        HashJob {
            path: RelPath::new(name).unwrap(),
            len: meta.len(),
            stamp: stamp_of(&meta),
            marks: Default::default(),
        }
    }

    fn hash_all(dir: &std::path::Path, jobs: Vec<HashJob>) -> (Vec<HashOutcome>, u64) {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut hasher = Hasher::start(Arc::new(ReadRoot::open(dir).unwrap()), bytes.clone()).unwrap();
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
            let HashOutcome::Hashed(h) = outcome else { panic!("{outcome:?}") };
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
            let HashOutcome::Hashed(h) = outcome else { panic!("{outcome:?}") };
            match h.path.as_str() {
                "sparse" => assert_eq!(h.indexed.id.root.0, merkle::root_of_bytes(&content)),
                // 2^40 bytes are a full tree of 2^26 blocks.
                _ => assert_eq!(h.indexed.id.root.0, merkle::zero_chunk_digest(26)),
            }
        }
    }

    /// Such files were offered as empty ones.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_goes_on_behind_its_length_is_not_hashed() {
        let proc = std::path::Path::new("/proc/self");
        let (outcomes, bytes) = hash_all(proc, vec![job(proc, "status")]);
        assert!(
            matches!(&outcomes[0], HashOutcome::Unreadable(_, e) if e.to_string().contains("more than its length"))
        );
        assert_eq!((outcomes.len(), bytes), (1, 0));
    }

    #[test]
    fn a_file_in_another_state_is_not_hashed() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("a"), "x").unwrap();
        fs::File::create(tmp.path().join("big")).unwrap().set_len(64 << 20).unwrap();
        let mut jobs = vec![job(tmp.path(), "a"), job(tmp.path(), "big")];
        jobs.iter_mut().for_each(|j| j.stamp.ctime_ns -= 1);
        jobs.push(HashJob { path: RelPath::new("none").unwrap(), ..jobs[0].clone() });
        let (outcomes, bytes) = hash_all(tmp.path(), jobs);
        assert_eq!((outcomes.len(), bytes), (3, 0));
        assert!(outcomes.iter().all(|o| matches!(o, HashOutcome::Changed(_))));
    }
}
