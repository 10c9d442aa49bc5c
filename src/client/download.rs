//! A download: many files from all peers that hold them.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossbeam::sync::WaitGroup;

use crate::client::coordinator::Coordinator;
use crate::client::disk_queues::{DiskQueues, DiskReceivers};
use crate::client::disk_workers;
use crate::client::limits::{DISK_THREADS, SMALL_THREADS};
use crate::client::shared::DownloadShared;
use crate::client::targets::{Target, merge};
use crate::client::{Client, FetchError, FileReport, Progress, Report};
use crate::runtime::{BlockingPool, OnBegin, Workers};
use crate::store::Disk;
use crate::swarm::Extent;
use crate::sync::lock;

/// What to fetch.
pub struct DownloadPlan {
    /// The files.
    pub targets: Vec<Target>,
    /// Where they go.
    pub disk: Arc<Disk>,
}

/// A running download. Dropping it cancels it and waits for its threads.
pub struct Download {
    shared: Arc<DownloadShared>,
    total: u64,
    result: Receiver<Result<Report, FetchError>>,
    early: Mutex<Option<Result<Report, FetchError>>>,
    threads: Option<Workers>,
    _stop: OnBegin,
}

impl Download {
    /// Starts to fetch the files of `plan` with the sessions of `client`. Files that are on the
    /// disk already are only counted; equal contents are fetched once.
    ///
    /// # Errors
    /// [`FetchError::Threads`]: the system has no thread to give.
    pub fn start(plan: DownloadPlan, client: &Client) -> Result<Self, FetchError> {
        let (files, holders) = merge(plan.targets);
        let total = files.iter().map(|f| f.id.len).sum();
        let (queues, receivers) = DiskQueues::new();
        let shared = Arc::new(DownloadShared::new(client, plan.disk, files, queues));
        {
            let mut state = shared.state();
            for (file, holders) in (0..).zip(holders) {
                for &node in &*holders {
                    if let Some(handle) = state.peer(node) {
                        state.set_held(file, handle, Extent::Whole);
                    }
                }
            }
        }
        let (tell, result) = bounded(1);
        let mut threads = Workers::default();
        if let Err(e) = spawn(&mut threads, &shared, &client.threads, receivers, tell) {
            shared.stop();
            shared.queues.end();
            return Err(FetchError::Threads(e));
        }
        let weak = Arc::downgrade(&shared);
        let stop = client.ctx.shutdown.while_held(move || {
            if let Some(shared) = weak.upgrade() {
                shared.stop();
            }
        });
        Ok(Download { shared, total, result, early: Mutex::default(), threads: Some(threads), _stop: stop })
    }

    /// Waits until the download has ended. Blocks at most the context's timeout without a chunk,
    /// however long the files.
    ///
    /// # Errors
    /// [`FetchError`]; what came is kept for the next run.
    pub fn wait(self) -> Result<Report, FetchError> {
        if let Some(early) = lock(&self.early).take() {
            return early;
        }
        self.result.recv().unwrap_or(Err(FetchError::Interrupted))
    }

    /// Waits for at most `time`; true when the download has ended, so that [`wait`](Self::wait)
    /// returns at once.
    pub fn wait_for(&self, time: Duration) -> bool {
        let mut early = lock(&self.early);
        if early.is_none() {
            match self.result.recv_timeout(time) {
                Ok(result) => *early = Some(result),
                Err(RecvTimeoutError::Disconnected) => *early = Some(Err(FetchError::Interrupted)),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        early.is_some()
    }

    /// How far the download is.
    pub fn progress(&self) -> Progress {
        let stats = &self.shared.stats;
        let fetched = stats.bytes.load(Ordering::Relaxed);
        Progress {
            files: self.shared.files.len(),
            files_done: self.shared.files.len() - self.shared.state().unfinished(),
            bytes: self.total,
            bytes_done: (fetched + stats.there.load(Ordering::Relaxed)).min(self.total),
            bytes_fetched: fetched,
            seconds: stats.begun.elapsed().as_secs_f64(),
            peers: lock(&stats.by_peer).len(),
        }
    }

    /// The paths that were put in place since the last call.
    pub fn fetched(&self, seen: &mut usize) -> Vec<FileReport> {
        let reports = lock(&self.shared.stats.reports);
        let new = reports.get(*seen..).unwrap_or_default().to_vec();
        *seen += new.len();
        new
    }

    /// Ends the download soon, with everything kept for the next run; [`wait`](Self::wait) then
    /// returns [`FetchError::Interrupted`].
    pub fn cancel(&self) {
        self.shared.stop();
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.shared.stop();
        drop(self.threads.take());
    }
}

/// Starts the threads of a download; the coordinator sends the result to `tell`.
fn spawn(
    threads: &mut Workers,
    shared: &Arc<DownloadShared>,
    connections: &Arc<BlockingPool>,
    receivers: DiskReceivers,
    tell: Sender<Result<Report, FetchError>>,
) -> io::Result<()> {
    // The coordinator waits for the disk threads, which each hold a clone.
    let disk = WaitGroup::new();
    for i in 0..DISK_THREADS {
        let (shared, receivers, working) = (shared.clone(), receivers.clone(), disk.clone());
        threads.spawn(&format!("gpb-disk-{i}"), move || {
            disk_workers::run_jobs(&shared, &receivers.jobs);
            drop((receivers, working));
        })?;
    }
    for i in 0..SMALL_THREADS {
        let (shared, receivers, working) = (shared.clone(), receivers.clone(), disk.clone());
        threads.spawn(&format!("gpb-small-{i}"), move || {
            disk_workers::write_small(&shared, &receivers.small);
            drop((receivers, working));
        })?;
    }
    let checker = shared.clone();
    threads.spawn("gpb-check", move || disk_workers::check(&checker))?;
    let mut coordinator = Coordinator::new(shared.clone(), connections.clone());
    threads.spawn("gpb-download", move || drop(tell.send(coordinator.run(disk))))
}
