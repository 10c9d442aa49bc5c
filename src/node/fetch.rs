//! A fetch that runs, as a handle that any part of a program may hold.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::client::{Canceller, Failed, FileReport, Progress, Report};
use crate::identity::PeerId;
use crate::limits::WAIT_MAX;
use crate::node::fetch_job::FetchJob;
use crate::node::fetch_state::FetchState;
use crate::node::updates::Updates;
use crate::runtime::Workers;
use crate::sync::lock;

/// A fetch of a [`Node`](crate::Node), from its first question to its last file.
///
/// It exists at once: its first [`Phase`](crate::Phase) is to search. Clones are handles of the
/// same fetch, so one part of a program may wait for it while another shows or cancels it. When the
/// last of them is dropped, the fetch ends, its threads are joined, and the chunks that arrived are
/// kept: the next fetch of the same files continues from them, also after a restart. That drop waits
/// for the threads, and so for a callback that runs: hold no lock meanwhile that a callback takes.
///
/// ```
/// use std::time::Duration;
///
/// # let lan = gpb::testing::Lan::new()?;
/// # let server = lan.sharing(&[("a.bin", &[7; 300_000])])?;
/// # let node = lan.node()?;
/// let fetch = node.fetch("a.bin")?;
/// fetch.on_update(|at| println!("{:?}: {} of {} bytes", at.phase, at.bytes_done, at.bytes));
/// let waiting = fetch.clone();
/// let report = std::thread::spawn(move || waiting.wait()).join().unwrap()?;
/// for file in &report.fetched {
///     println!("{} is {}", file.path, report.dir.join(file.out.as_str()).display());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a fetch ends when its last handle is dropped"]
pub struct Fetch(Arc<FetchOwner>);

/// Ends the fetch with its last handle.
struct FetchOwner {
    state: Arc<FetchState>,
    threads: Mutex<Workers>,
}

impl Fetch {
    /// Starts the thread of a fetch.
    pub(super) fn start(job: FetchJob) -> io::Result<Self> {
        let (state, mut threads) = (job.state.clone(), Workers::ending(&job.client.ctx.shutdown));
        threads.spawn("gpb-fetch", move || job.run())?;
        Ok(Fetch(Arc::new(FetchOwner { state, threads: Mutex::new(threads) })))
    }

    /// Waits until all files are whole, verified and in place, or it has failed. Any number of
    /// threads may wait, and what they get is shared.
    ///
    /// A search blocks as [`Node::fetch`](crate::Node::fetch) tells; after it, this blocks for at
    /// most the node's [`timeout`](crate::Config::timeout) without progress, however long the files,
    /// and for as long as the fetch is paused.
    ///
    /// # Errors
    /// [`Failed`]: the error, and the report of what was reached. Chunks that arrived stay on disk,
    /// and the next fetch of the same files continues from them.
    pub fn wait(&self) -> Result<Arc<Report>, Failed> {
        loop {
            if let Some(end) = self.0.state.wait(WAIT_MAX) {
                return end;
            }
        }
    }

    /// Waits at most for `time`; true when the fetch has ended, so that [`wait`](Self::wait)
    /// returns at once.
    pub fn wait_for(&self, time: Duration) -> bool {
        self.0.state.wait(time).is_some()
    }

    /// How far the fetch is. Does not block.
    pub fn progress(&self) -> Progress {
        self.0.state.progress()
    }

    /// The news of the fetch from its beginning, to be waited for. Does not block.
    pub fn updates(&self) -> Updates {
        Updates::new(self.0.state.clone())
    }

    /// Calls `callback` with the present state, and then each time that the fetch is further, until
    /// it has ended: at most some twenty times a second, the last time with
    /// [`Phase::Ended`](crate::Phase::Ended).
    ///
    /// The first call comes from the calling thread, the others from the thread of the fetch, which
    /// waits for them: send a message, or wake what shows the state. The callback is dropped when the
    /// fetch has ended; a handle of the fetch that it holds keeps the fetch until then. One that
    /// panics in the thread of the fetch is dropped with a warning in the log, and the fetch continues.
    ///
    /// A callback may add another one, or cancel and pause the fetch. It must not
    /// [`wait`](Self::wait) for it.
    pub fn on_update(&self, callback: impl FnMut(Progress) + Send + 'static) {
        self.0.state.on_update(Box::new(callback));
    }

    /// The directory that [`FileReport::out`] lies below. With [`Config::dirs`](crate::Config::dirs) it
    /// depends on what is found, and is known once that is fetched.
    pub fn dir(&self) -> &Path {
        self.0.state.dir()
    }

    /// The files that are in place by now. Does not block.
    pub fn fetched(&self) -> Vec<FileReport> {
        self.0.state.files_after(0, usize::MAX)
    }

    /// The verified bytes that came from each key by now, most first. Does not block.
    pub fn peers(&self) -> Vec<(PeerId, u64)> {
        self.0.state.stats.by_key()
    }

    /// What ends this fetch from another thread, also while it is searching. It does not keep the
    /// fetch alive.
    pub fn canceller(&self) -> Canceller {
        self.0.state.canceller.clone()
    }

    /// Ends the fetch within milliseconds, in whatever phase; [`wait`](Self::wait) then returns
    /// [`FetchError::Cancelled`](crate::FetchError::Cancelled). Does not block.
    pub fn cancel(&self) {
        self.0.state.canceller.cancel();
    }

    /// Lets the fetch rest: within milliseconds it holds no connection, and no file open. What
    /// arrived stays on disk. Callers keep waiting, and the pause counts in no timeout. Does not
    /// block.
    pub fn pause(&self) {
        self.0.state.set_paused(true);
    }

    /// Resumes after a [`pause`](Self::pause), with what is missing. Does not block.
    pub fn resume(&self) {
        self.0.state.set_paused(false);
    }
}

impl Drop for FetchOwner {
    fn drop(&mut self) {
        self.state.canceller.cancel();
        drop(std::mem::take(&mut *lock(&self.threads)));
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.0.state;
        f.debug_struct("Fetch").field("what", &state.what).field("progress", &state.progress()).finish_non_exhaustive()
    }
}

/// The fetches of a node. It does not keep them alive.
#[derive(Default)]
pub(super) struct RunningFetches(Mutex<Vec<RunningFetch>>);

/// A fetch that has not ended, as far as is known.
struct RunningFetch {
    owner: Weak<FetchOwner>,
    state: Weak<FetchState>,
}

impl RunningFetches {
    pub(super) fn add(&self, fetch: &Fetch) {
        let mut all = lock(&self.0);
        // Let go behind the lock.
        let states: Vec<_> = all.iter().map(|running| running.state.upgrade()).collect();
        let mut runs = states.iter().map(|state| state.as_ref().is_some_and(|state| !state.has_ended()));
        all.retain(|running| runs.next() == Some(true) && running.owner.strong_count() > 0);
        all.push(RunningFetch { owner: Arc::downgrade(&fetch.0), state: Arc::downgrade(&fetch.0.state) });
        drop(all);
    }

    /// The states of the fetches that have not ended, the oldest first. They keep no fetch alive, so
    /// that dropping them waits for no thread.
    pub(super) fn states(&self) -> Vec<Arc<FetchState>> {
        let all: Vec<_> = lock(&self.0).iter().filter_map(|running| running.state.upgrade()).collect();
        all.into_iter().filter(|state| !state.has_ended()).collect()
    }

    /// The fetches that have not ended, the oldest first.
    pub(super) fn all(&self) -> Vec<Fetch> {
        let all: Vec<Fetch> = lock(&self.0).iter().filter_map(|running| running.owner.upgrade()).map(Fetch).collect();
        all.into_iter().filter(|fetch| !fetch.0.state.has_ended()).collect()
    }
}
