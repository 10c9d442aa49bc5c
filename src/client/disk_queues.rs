//! The queues between the threads that receive and the threads that wait for the disk.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crossbeam::channel::{Receiver, SendError, Sender, unbounded};

use crate::client::joins::WholeFile;
use crate::client::limits::{DISK_THREADS, SMALL_THREADS};
use crate::content::Digest;
use crate::identity::PeerId;
use crate::runtime::{Shutdown, Workers};
use crate::store::{KnownCopy, PartialFile};
use crate::swarm::{FileNo, PeerHandle};
use crate::sync::lock;

/// A job of a disk thread.
pub(crate) enum DiskJob {
    /// Check a layer and open the partial file.
    Open { file: FileNo, layer: Vec<Digest>, from: PeerHandle, peer: PeerId },
    /// Verify some chunks of an earlier run.
    Recheck { file: FileNo, open: Arc<PartialFile> },
    /// Another download has put the file in place: take it over from there.
    TakeOver { file: FileNo, from: WholeFile },
    /// The download that was waited for has ended: fetch the file.
    Own { file: FileNo },
    /// The content lies in another file on the disk.
    Reuse { file: FileNo, copy: KnownCopy },
    /// All chunks are written: make the file durable and name it.
    Finish { file: FileNo, open: Arc<PartialFile> },
    /// No more jobs for one thread.
    End,
}

/// A one-chunk file to write; `None` ends one writer.
pub(crate) type SmallJob = Option<(FileNo, SmallContent)>;

/// Where the bytes of a one-chunk file come from.
pub(crate) enum SmallContent {
    /// A peer sent them, and they are verified.
    Came(Vec<u8>),
    /// They are zeros.
    Zeros,
    /// They lie in another file.
    Reused(KnownCopy),
}

/// The sending ends of the queues. The state of the download bounds what is in them.
pub(crate) struct DiskQueues {
    pub(crate) jobs: JobQueue<DiskJob>,
    pub(crate) small: JobQueue<SmallJob>,
    /// Held by the thread that gathers and writes small files, where only one at a time should.
    pub(crate) small_turn: Mutex<()>,
    /// Connections that write to the disk right now.
    pub(crate) writing: AtomicUsize,
}

/// The sending end of a queue. Its threads start with the first jobs, one for each until there are
/// all of them: a download of one small file needs one.
pub(crate) struct JobQueue<T> {
    jobs: Sender<T>,
    threads_max: usize,
    /// Starts the thread of that number.
    start: OnceLock<StartThread>,
    threads: Mutex<JobThreads>,
}

type StartThread = Box<dyn Fn(&mut Workers, usize) -> io::Result<()> + Send + Sync>;

struct JobThreads {
    started: usize,
    running: Workers,
    /// No further one starts.
    has_ended: bool,
    /// What a panic of one of them begins: without it, what waits for its job would wait for ever.
    shutdown: Shutdown,
}

/// The receiving ends, which the disk threads share.
#[derive(Clone)]
pub(crate) struct DiskReceivers {
    pub(crate) jobs: Receiver<DiskJob>,
    pub(crate) small: Receiver<SmallJob>,
}

impl DiskQueues {
    /// Queues whose threads begin `shutdown` with a panic.
    pub(crate) fn new(shutdown: &Shutdown) -> (Self, DiskReceivers) {
        let (jobs, jobs_received) = JobQueue::new(DISK_THREADS, shutdown);
        let (small, small_received) = JobQueue::new(SMALL_THREADS, shutdown);
        let queues = DiskQueues { jobs, small, small_turn: Mutex::default(), writing: AtomicUsize::new(0) };
        (queues, DiskReceivers { jobs: jobs_received, small: small_received })
    }

    /// Has all disk threads end once they have done what is queued, and waits for them.
    pub(crate) fn end(&self) {
        let running = [self.jobs.end(|| DiskJob::End), self.small.end(|| None)];
        drop(running);
    }

    /// Whether a connection writes right now.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed) > 0
    }
}

impl<T> JobQueue<T> {
    fn new(threads_max: usize, shutdown: &Shutdown) -> (Self, Receiver<T>) {
        let (jobs, received) = unbounded();
        let (running, shutdown) = (Workers::ending(shutdown), shutdown.clone());
        let threads = Mutex::new(JobThreads { started: 0, running, has_ended: false, shutdown });
        (JobQueue { jobs, threads_max, start: OnceLock::new(), threads }, received)
    }

    /// Threads are started by `start`, which gets their numbers. The first call counts.
    pub(crate) fn starts(&self, start: impl Fn(&mut Workers, usize) -> io::Result<()> + Send + Sync + 'static) {
        let _ = self.start.set(Box::new(start));
    }

    /// Queues `job`, for a further thread if there may be one.
    ///
    /// # Errors
    /// No thread takes it, nor will.
    pub(crate) fn send(&self, job: T) -> Result<(), SendError<T>> {
        let mut threads = lock(&self.threads);
        if threads.has_ended {
            return Err(SendError(job));
        }
        let JobThreads { started, running, .. } = &mut *threads;
        if *started < self.threads_max
            && let Some(start) = self.start.get()
            && start(running, *started).is_ok()
        {
            *started += 1;
        }
        drop(threads);
        self.jobs.send(job)
    }

    /// Queues `job`, which ends a thread, for each of them. Returns the threads, which are joined when
    /// that is dropped.
    fn end(&self, job: impl Fn() -> T) -> Workers {
        let mut threads = lock(&self.threads);
        threads.has_ended = true;
        let JobThreads { started, running, shutdown, .. } = &mut *threads;
        let (started, running) = (std::mem::take(started), std::mem::replace(running, Workers::ending(shutdown)));
        drop(threads);
        (0..started).for_each(|_| drop(self.jobs.send(job())));
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_start_with_the_jobs_up_to_their_number_and_end_behind_them() {
        let (queue, received) = JobQueue::<Option<u32>>::new(2, &Shutdown::new());
        let (tell, told) = unbounded();
        queue.starts(move |workers, n| {
            let (received, tell) = (received.clone(), tell.clone());
            workers.spawn("gpb-test", move || {
                received.iter().map_while(|job| job).for_each(|job| tell.send((n, job)).unwrap());
            })
        });
        assert_eq!(lock(&queue.threads).started, 0);
        (0..9).for_each(|job| queue.send(Some(job)).unwrap());
        assert_eq!(lock(&queue.threads).started, 2);
        drop(queue.end(|| None));
        let mut done: Vec<u32> = told.try_iter().map(|(_, job)| job).collect();
        done.sort_unstable();
        assert_eq!(done, (0..9).collect::<Vec<_>>());
        assert!(queue.send(Some(9)).is_err(), "no thread starts any more");
    }

    #[test]
    fn a_panic_of_a_thread_ends_the_node() {
        let shutdown = Shutdown::new();
        let (queue, _received) = JobQueue::<Option<u32>>::new(1, &shutdown);
        queue.starts(|workers, _| workers.spawn("gpb-test", || panic!("for the test")));
        queue.send(Some(1)).unwrap();
        drop(queue.end(|| None));
        assert_eq!(shutdown.defect().as_deref(), Some("gpb-test"));
    }
}
