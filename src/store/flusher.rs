//! The thread that makes written chunks durable, and the budget that keeps writers from running
//! ahead of it.
//!
//! A chunk counts against the budget from before it is written until the journal holds it. At half
//! the budget the thread starts to flush while writers continue; at the whole budget they wait. What
//! was copied from another file has a budget of its own.
//! When little arrives, the thread flushes chunks after [`JOURNAL_AGE_MAX`]. A killed process
//! therefore loses at most the budget or that time of downloading, whatever the number of files.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::store::error::ToldErrors;
use crate::store::limits::{COPIED_BATCH_LEN, JOURNAL_AGE_MAX, JOURNAL_BATCH_LEN};
use crate::store::write_watch::WriteWatch;
use crate::sync::{PanicAlarm, lock, wait, wait_timeout};

/// A file with chunks that are written and not yet durable.
pub(crate) trait Flush: Debug + Send + Sync {
    /// Makes the chunks durable and returns their bytes to the [`Budget`]. The next write reports
    /// an error.
    fn flush(&self);
}

/// Where written bytes came from, which tells what it costs to lose them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOrigin {
    /// A peer, or they were checked.
    Fetched,
    /// Another file on the disk, from which they can be copied again.
    Copied,
}

/// Bytes of each [`WriteOrigin`].
pub(crate) type ByOrigin = [u64; 2];

impl WriteOrigin {
    /// Bytes that may be ahead of the journal.
    fn ahead_max(self) -> u64 {
        match self {
            WriteOrigin::Fetched => JOURNAL_BATCH_LEN,
            WriteOrigin::Copied => COPIED_BATCH_LEN,
        }
    }

    pub(crate) fn bytes(self, len: u64) -> ByOrigin {
        let mut bytes = ByOrigin::default();
        bytes[self as usize] = len;
        bytes
    }
}

/// The bytes that are written, or being written, but not journaled, over all partial files of a
/// disk.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    queue: Mutex<Queue>,
    due: Condvar,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    unjournaled: ByOrigin,
    waiting: u32,
    /// Files with new chunks, by a number that is unique among open files.
    dirty: HashMap<u64, Arc<dyn Flush>>,
    /// When the first file was added to the empty queue.
    dirty_since: Option<Instant>,
    stop: bool,
    /// The thread panicked: nothing further is flushed.
    is_dead: bool,
}

impl Queue {
    fn is_due(&self) -> bool {
        // A chunk longer than what is left of the budget may wait although less than half is used.
        let is_half = |origin: WriteOrigin| self.unjournaled[origin as usize] >= origin.ahead_max() / 2;
        !self.dirty.is_empty() && (is_half(WriteOrigin::Fetched) || is_half(WriteOrigin::Copied) || self.waiting > 0)
    }
}

impl Budget {
    /// Takes `len` bytes. Waits while they would exceed [`JOURNAL_BATCH_LEN`], or [`COPIED_BATCH_LEN`] of what
    /// was copied; a longer chunk waits until it is alone. Once the thread has panicked, nobody waits for it.
    pub(crate) fn take(&self, origin: WriteOrigin, len: u64) {
        let mut queue = self.lock();
        let exceeds = |ahead: u64| ahead > 0 && ahead + len > origin.ahead_max();
        while !queue.is_dead && exceeds(queue.unjournaled[origin as usize]) {
            queue.waiting += 1;
            self.due.notify_one();
            queue = wait(&self.freed, queue);
            queue.waiting -= 1;
        }
        queue.unjournaled[origin as usize] += len;
        self.wake(&queue);
    }

    /// Returns bytes that were journaled, or not written after all.
    pub(crate) fn put_back(&self, lens: ByOrigin) {
        if lens != ByOrigin::default() {
            let mut queue = self.lock();
            for (ahead, len) in queue.unjournaled.iter_mut().zip(lens) {
                *ahead = ahead.saturating_sub(len);
            }
            self.freed.notify_all();
        }
    }

    /// Queues a file with new chunks, under a number that no other open file has.
    pub(crate) fn enqueue(&self, key: u64, file: Arc<dyn Flush>) {
        let mut queue = self.lock();
        let old = queue.dirty.insert(key, file);
        if queue.dirty_since.is_none() {
            queue.dirty_since = Some(Instant::now());
            // The thread sleeps without a limit while the queue is empty.
            self.due.notify_one();
        }
        self.wake(&queue);
        drop(queue);
        // Closing a file may do I/O, so it happens outside of the lock.
        drop(old);
    }

    /// Removes a file from the queue, which would keep it open.
    pub(crate) fn dequeue(&self, key: u64) {
        let mut queue = self.lock();
        let old = queue.dirty.remove(&key);
        if queue.dirty.is_empty() {
            queue.dirty_since = None;
        }
        drop(queue);
        drop(old);
    }

    fn wake(&self, queue: &Queue) {
        if queue.is_due() {
            self.due.notify_one();
        }
    }

    fn run(&self, age_max: Duration) {
        let mut queue = self.lock();
        while !queue.stop {
            let left = queue.dirty_since.map(|since| age_max.saturating_sub(since.elapsed()));
            if !queue.is_due() && left != Some(Duration::ZERO) {
                queue = match left {
                    Some(left) => wait_timeout(&self.due, queue, left),
                    None => wait(&self.due, queue),
                };
                continue;
            }
            queue.dirty_since = None;
            let dirty = std::mem::take(&mut queue.dirty);
            drop(queue);
            dirty.into_values().for_each(|file| file.flush());
            queue = self.lock();
        }
        // Nothing is left to flush: an open `PartialFile` keeps the flusher running, and takes itself
        // off the queue when it is closed.
        let left = std::mem::take(&mut queue.dirty);
        drop(queue);
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

/// Lets the writers go and rings when it is dropped by a panic of the thread.
struct Mourner {
    budget: Arc<Budget>,
    alarm: PanicAlarm,
}

impl Drop for Mourner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.budget.lock().is_dead = true;
            self.budget.freed.notify_all();
            self.alarm.ring(THREAD);
        }
    }
}

/// Owns the flushing thread, which is joined on drop.
#[derive(Debug)]
pub(crate) struct Flusher {
    budget: Arc<Budget>,
    told: Arc<ToldErrors>,
    watch: Arc<WriteWatch>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread, whose panic rings `alarm`.
    pub(crate) fn start(alarm: &PanicAlarm) -> io::Result<Self> {
        Self::start_with(JOURNAL_AGE_MAX, alarm)
    }

    fn start_with(age_max: Duration, alarm: &PanicAlarm) -> io::Result<Self> {
        let budget = Arc::new(Budget::default());
        let mourner = Mourner { budget: budget.clone(), alarm: alarm.clone() };
        let thread = Builder::new().name(THREAD.into()).spawn(move || mourner.budget.run(age_max))?;
        Ok(Flusher { budget, told: Arc::default(), watch: Arc::default(), thread: Some(thread) })
    }

    /// A budget that no thread flushes.
    #[cfg(test)]
    pub(crate) fn without_thread() -> Self {
        Flusher { budget: Arc::default(), told: Arc::default(), watch: Arc::default(), thread: None }
    }

    /// Has the thread panic.
    #[cfg(test)]
    pub(crate) fn panic(&self) {
        self.budget.take(WriteOrigin::Fetched, JOURNAL_BATCH_LEN);
        self.budget.enqueue(u64::MAX, Arc::new(tests::Ill));
    }

    /// The errors that were reported to the writers.
    pub(crate) fn told(&self) -> &Arc<ToldErrors> {
        &self.told
    }

    /// What notices other programs that write to the files.
    pub(crate) fn watch(&self) -> &Arc<WriteWatch> {
        &self.watch
    }

    /// The budget of the writers.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.budget.lock().stop = true;
        self.budget.due.notify_all();
        if let Some(thread) = self.thread.take() {
            // The panic message of the thread is already on stderr.
            let _ = thread.join();
        }
    }
}

/// The name of the thread.
const THREAD: &str = "gpb-journal";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Flushes by giving back all that was added.
    #[derive(Debug)]
    struct Fake {
        budget: Arc<Budget>,
        dirty: AtomicU64,
        flushes: AtomicU64,
    }

    impl Flush for Fake {
        fn flush(&self) {
            self.flushes.fetch_add(1, Ordering::SeqCst);
            self.budget.put_back([self.dirty.swap(0, Ordering::SeqCst), 0]);
        }
    }

    fn fake(flusher: &Flusher) -> Arc<Fake> {
        Arc::new(Fake { budget: flusher.budget().clone(), dirty: AtomicU64::new(0), flushes: AtomicU64::new(0) })
    }

    fn write(file: &Arc<Fake>, len: u64) {
        file.budget.take(WriteOrigin::Fetched, len);
        file.dirty.fetch_add(len, Ordering::SeqCst);
        file.budget.enqueue(1, file.clone());
    }

    #[test]
    fn nothing_is_flushed_before_half_a_batch_and_writers_never_stall_for_good() {
        let flusher = Flusher::start(&PanicAlarm::default()).unwrap();
        let file = fake(&flusher);
        write(&file, JOURNAL_BATCH_LEN / 2 - 1);
        assert_eq!(file.flushes.load(Ordering::SeqCst), 0);
        write(&file, 1);
        let end = Instant::now() + Duration::from_secs(60);
        while file.budget.lock().unjournaled[0] > 0 {
            assert!(Instant::now() < end, "the thread does not flush");
            std::thread::yield_now();
        }
        // Chunks longer than half a batch, and longer than all of it, pass as well.
        for len in [1, JOURNAL_BATCH_LEN - 1, 1, 2 * JOURNAL_BATCH_LEN, JOURNAL_BATCH_LEN, 3] {
            write(&file, len);
        }
    }

    #[test]
    fn what_is_old_is_flushed_however_little_it_is() {
        let flusher = Flusher::start_with(Duration::from_millis(50), &PanicAlarm::default()).unwrap();
        let file = fake(&flusher);
        for _ in 0..2 {
            let begun = Instant::now();
            write(&file, 1);
            while file.budget.lock().unjournaled[0] > 0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "the thread does not flush");
                std::thread::yield_now();
            }
            assert!(begun.elapsed() >= Duration::from_millis(50), "flushed at once");
        }
        assert_eq!(file.flushes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn writers_wait_at_the_whole_budget() {
        let flusher = Flusher::start(&PanicAlarm::default()).unwrap();
        let file = fake(&flusher);
        // Being written, so nothing can be flushed.
        file.budget.take(WriteOrigin::Fetched, JOURNAL_BATCH_LEN);
        file.budget.take(WriteOrigin::Copied, JOURNAL_BATCH_LEN);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| file.budget.take(WriteOrigin::Fetched, 1));
            let end = Instant::now() + Duration::from_secs(60);
            while file.budget.lock().waiting == 0 {
                assert!(Instant::now() < end, "the writer does not wait");
                std::thread::yield_now();
            }
            assert!(!waiter.is_finished());
            file.budget.put_back([JOURNAL_BATCH_LEN, 0]);
            waiter.join().unwrap();
        });
        assert_eq!(file.budget.lock().unjournaled, [1, JOURNAL_BATCH_LEN]);
    }

    /// Fails as a defect does.
    #[derive(Debug)]
    pub(super) struct Ill;

    impl Flush for Ill {
        fn flush(&self) {
            panic!("for the test");
        }
    }

    /// Cause: a panic ended the thread alone. Effect: writers waited for ever for the budget that it
    /// gives back. Mend: they are let go, and the alarm ends the node.
    #[test]
    fn a_panic_of_the_thread_rings_and_lets_the_writers_go() {
        let (tell, told) = std::sync::mpsc::channel();
        let alarm = PanicAlarm::new(move |thread| tell.send(thread.to_string()).unwrap());
        let flusher = Flusher::start(&alarm).unwrap();
        let budget = flusher.budget().clone();
        budget.take(WriteOrigin::Fetched, JOURNAL_BATCH_LEN);
        let (went_on, goes_on) = std::sync::mpsc::channel();
        std::thread::spawn({
            let budget = budget.clone();
            move || {
                budget.take(WriteOrigin::Fetched, 1);
                went_on.send(()).unwrap();
            }
        });
        let end = Instant::now() + Duration::from_secs(60);
        while budget.lock().waiting == 0 {
            assert!(Instant::now() < end, "the writer does not wait");
            std::thread::yield_now();
        }
        budget.enqueue(1, Arc::new(Ill));
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), "gpb-journal");
        goes_on.recv_timeout(Duration::from_secs(60)).expect("the writer is let go");
    }

    #[test]
    fn the_thread_ends_with_its_owner_even_with_work_left() {
        let flusher = Flusher::start(&PanicAlarm::default()).unwrap();
        let file = fake(&flusher);
        write(&file, 5);
        drop(flusher);
        assert_eq!(Arc::strong_count(&file), 1);
    }
}
