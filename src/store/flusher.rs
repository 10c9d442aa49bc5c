//! The thread that makes written chunks durable, and the budget that keeps writers from running ahead of it.
//!
//! Bytes count from before they are written until a journal holds their chunk. At half the budget the thread begins
//! to flush, so writers go on meanwhile; at the whole budget they wait for it. Where little comes it flushes what is a few
//! seconds old. A process that is killed therefore loses at most the budget and those seconds, whatever the number of files.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::store::limits::{JOURNAL_AGE_MAX, JOURNAL_BATCH_LEN};
use crate::sync::{lock, wait, wait_timeout};

/// Something with chunks that are written and not yet durable.
pub(crate) trait Flush: Debug + Send + Sync {
    /// Makes them durable and gives their bytes back to the [`Budget`]. Errors are kept for whoever writes next.
    fn flush(&self);
}

/// Bytes that are written or being written but not journaled, over all partial files of a disk.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    queue: Mutex<Queue>,
    due: Condvar,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    unjournaled: u64,
    waiting: u32,
    /// By a number that is unique among open files.
    dirty: HashMap<u64, Arc<dyn Flush>>,
    /// Since when there is something in it.
    dirty_since: Option<Instant>,
    stop: bool,
}

impl Queue {
    fn is_due(&self) -> bool {
        // A writer may wait although less than half is taken, for a chunk longer than what is left.
        !self.dirty.is_empty() && (self.unjournaled >= JOURNAL_BATCH_LEN / 2 || self.waiting > 0)
    }
}

impl Budget {
    /// Takes `len` bytes; waits while they would exceed [`JOURNAL_BATCH_LEN`]. A longer chunk goes alone.
    pub(crate) fn take(&self, len: u64) {
        let mut queue = self.lock();
        while queue.unjournaled > 0 && queue.unjournaled + len > JOURNAL_BATCH_LEN {
            queue.waiting += 1;
            self.due.notify_one();
            queue = wait(&self.freed, queue);
            queue.waiting -= 1;
        }
        queue.unjournaled += len;
        self.wake(&queue);
    }

    /// Gives bytes back: journaled, or not written after all.
    pub(crate) fn put_back(&self, len: u64) {
        if len > 0 {
            let mut queue = self.lock();
            queue.unjournaled = queue.unjournaled.saturating_sub(len);
            self.freed.notify_all();
        }
    }

    /// Puts a file with new chunks in the queue, under a number that no other open file has.
    pub(crate) fn enqueue(&self, key: u64, file: Arc<dyn Flush>) {
        let mut queue = self.lock();
        let old = queue.dirty.insert(key, file);
        if queue.dirty_since.is_none() {
            queue.dirty_since = Some(Instant::now());
            // The thread sleeps without end while there is nothing.
            self.due.notify_one();
        }
        self.wake(&queue);
        drop(queue);
        // Dropping a file may come back to the lock.
        drop(old);
    }

    /// Takes a file out of the queue, which would keep it open.
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
        // Files left here are flushed by whoever drops them; dropping one may come back to this lock.
        let left = std::mem::take(&mut queue.dirty);
        drop(queue);
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

/// The thread; joined on drop.
#[derive(Debug)]
pub(crate) struct Flusher {
    budget: Arc<Budget>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_with(JOURNAL_AGE_MAX)
    }

    fn start_with(age_max: Duration) -> io::Result<Self> {
        let budget = Arc::new(Budget::default());
        let shared = budget.clone();
        let thread = Builder::new().name("gpb-journal".into()).spawn(move || shared.run(age_max))?;
        Ok(Flusher { budget, thread: Some(thread) })
    }

    /// A budget that no thread flushes.
    #[cfg(test)]
    pub(crate) fn without_thread() -> Self {
        Flusher { budget: Arc::default(), thread: None }
    }

    /// What writers take from.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.budget.lock().stop = true;
        self.budget.due.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has said what it is; nothing is left to be done about it here.
            let _ = thread.join();
        }
    }
}

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
            self.budget.put_back(self.dirty.swap(0, Ordering::SeqCst));
        }
    }

    fn fake(flusher: &Flusher) -> Arc<Fake> {
        Arc::new(Fake { budget: flusher.budget().clone(), dirty: AtomicU64::new(0), flushes: AtomicU64::new(0) })
    }

    fn write(file: &Arc<Fake>, len: u64) {
        file.budget.take(len);
        file.dirty.fetch_add(len, Ordering::SeqCst);
        file.budget.enqueue(1, file.clone());
    }

    #[test]
    fn nothing_is_flushed_before_half_a_batch_and_writers_never_stall_for_good() {
        let flusher = Flusher::start().unwrap();
        let file = fake(&flusher);
        write(&file, JOURNAL_BATCH_LEN / 2 - 1);
        assert_eq!(file.flushes.load(Ordering::SeqCst), 0);
        write(&file, 1);
        let end = Instant::now() + Duration::from_secs(10);
        while file.budget.lock().unjournaled > 0 {
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
        let flusher = Flusher::start_with(Duration::from_millis(50)).unwrap();
        let file = fake(&flusher);
        for _ in 0..2 {
            let begun = Instant::now();
            write(&file, 1);
            while file.budget.lock().unjournaled > 0 {
                assert!(begun.elapsed() < Duration::from_secs(10), "the thread does not flush");
                std::thread::yield_now();
            }
            assert!(begun.elapsed() >= Duration::from_millis(50), "flushed at once");
        }
        assert_eq!(file.flushes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn writers_wait_at_the_whole_budget() {
        let flusher = Flusher::start().unwrap();
        let file = fake(&flusher);
        // Being written, so nothing can be flushed.
        file.budget.take(JOURNAL_BATCH_LEN);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| file.budget.take(1));
            let end = Instant::now() + Duration::from_secs(10);
            while file.budget.lock().waiting == 0 {
                assert!(Instant::now() < end, "the writer does not wait");
                std::thread::yield_now();
            }
            assert!(!waiter.is_finished());
            file.budget.put_back(JOURNAL_BATCH_LEN);
            waiter.join().unwrap();
        });
        assert_eq!(file.budget.lock().unjournaled, 1);
    }

    #[test]
    fn the_thread_ends_with_its_owner_even_with_work_left() {
        let flusher = Flusher::start().unwrap();
        let file = fake(&flusher);
        write(&file, 5);
        drop(flusher);
        assert_eq!(Arc::strong_count(&file), 1);
    }
}
