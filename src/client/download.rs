//! A download: many files from all peers that hold them.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::client::coordinator::Coordinator;
use crate::client::disk_queues::{DiskQueues, DiskReceivers};
use crate::client::disk_workers;
use crate::client::limits::{CHECK_AT_ONCE_FILES, CHECK_AT_ONCE_LEN};
use crate::client::readings::Reading;
use crate::client::shared::{DownloadShared, Terms};
use crate::client::targets::{Target, merge};
use crate::client::{Client, DownloadEnd, FailedFile, FetchError, Overwrite, Phase, Progress, Report, Stats};
use crate::identity::NodeId;
use crate::runtime::{BlockingPool, OnBegin, Throttle, Workers};
use crate::store::{Disk, Life, LocalName};
use crate::swarm::{Extent, ReadWindow};
use crate::sync::lock;

/// What to fetch.
pub struct DownloadPlan {
    targets: Vec<Target>,
    failed: Vec<FailedFile>,
    disk: Arc<Disk>,
    options: DownloadOptions,
    reading: Option<Arc<Reading>>,
    stats: Arc<Stats>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

/// What a download may do, and how fast.
#[derive(Debug, Clone, Default)]
pub struct DownloadOptions {
    /// What is done with a different file at the place of one; the disk was opened with it.
    pub overwrite: Overwrite,
    /// How long what is put in place stays; the disk was opened with it.
    pub life: Life,
    /// The only nodes that are asked; all without them.
    pub sources: Option<Arc<[NodeId]>>,
    /// Most bytes a second, besides the limit of the node.
    pub limit: Option<u64>,
    /// Whether only contents are wanted, and no attributes, links and empty directories.
    pub contents_only: bool,
    /// Files that the disk has damaged, as they were hashed: the fetch repairs them, and believes no
    /// record.
    pub damaged: Option<Arc<[LocalName]>>,
}

impl DownloadPlan {
    /// A plan to fetch `targets` to `disk`.
    pub fn new(targets: Vec<Target>, disk: Arc<Disk>, options: DownloadOptions) -> Self {
        DownloadPlan {
            targets,
            failed: Vec::new(),
            disk,
            options,
            reading: None,
            stats: Arc::new(Stats::new()),
            notify: Arc::new(|| ()),
        }
    }

    /// Reports `failed` with the files: names that are known to fail.
    pub(crate) fn with_failed(self, failed: Vec<FailedFile>) -> Self {
        DownloadPlan { failed, ..self }
    }

    /// The only target has readers and no place: what they need is fetched.
    pub(crate) fn read_by(self, reading: Arc<Reading>) -> Self {
        DownloadPlan { reading: Some(reading), ..self }
    }

    /// Counts in `stats`, and calls `notify` when the download is further or over.
    pub(crate) fn watched(self, stats: Arc<Stats>, notify: Arc<dyn Fn() + Send + Sync>) -> Self {
        DownloadPlan { stats, notify, ..self }
    }
}

/// A running download. Dropping it cancels it and waits for its threads.
pub struct Download {
    shared: Arc<DownloadShared>,
    result: Receiver<DownloadEnd>,
    early: Mutex<Option<DownloadEnd>>,
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
        let DownloadPlan { targets, failed, disk, options, reading, stats, notify } = plan;
        let (files, holders) = merge(targets);
        disk.alarmed(client.ctx.shutdown.alarm());
        let (queues, receivers) = DiskQueues::new(&client.ctx.shutdown);
        let DownloadOptions { sources, limit, .. } = options;
        let (limit, joins) = ((Throttle::new(limit), limit), client.joins.clone());
        let (has_joined, readings) = (AtomicBool::new(false), client.readings.clone());
        let windows = reading.as_ref().map(|reading| reading.windows());
        let terms = Terms { sources, limit, notify, joins, has_joined, readings, reading };
        let shared = Arc::new(DownloadShared::new(client, (disk, files, failed), queues, stats, terms));
        {
            let mut state = shared.state();
            if let Some(windows) = windows {
                state.set_alone(0, true);
                state.set_windows(0, windows);
            }
            for (file, holders) in (0..).zip(holders) {
                for &node in &*holders {
                    if let Some(handle) = state.peer(node) {
                        state.set_held(file, handle, Extent::Whole);
                    }
                }
            }
        }
        let (tell, result) = bounded(1);
        let mut threads = Workers::ending(&client.ctx.shutdown);
        if let Err(e) = spawn(&mut threads, &shared, &client.threads, receivers, tell) {
            shared.stop();
            shared.queues.end();
            client.joins.end(&*shared);
            return Err(FetchError::Threads(e));
        }
        let weak = Arc::downgrade(&shared);
        let stop = client.ctx.shutdown.while_held(move || {
            if let Some(shared) = weak.upgrade() {
                shared.stop();
            }
        });
        Ok(Download { shared, result, early: Mutex::default(), threads: Some(threads), _stop: stop })
    }

    /// Waits until the download has ended. Blocks at most the context's timeout without a chunk,
    /// however long the files.
    ///
    /// # Errors
    /// [`FetchError`]: the gravest cause, if not everything is in place. Everything else is, and
    /// what came is kept for the next run.
    pub fn wait(self) -> Result<Report, Arc<FetchError>> {
        let end = self.end().unwrap_or_else(|| self.result.recv().unwrap_or_else(|_| lost()));
        end.error.map_or(Ok(end.report), Err)
    }

    /// What came of it, once it has ended; `None` while it runs and after it was returned.
    pub fn end(&self) -> Option<DownloadEnd> {
        self.wait_for(Duration::ZERO);
        lock(&self.early).take()
    }

    /// Waits for at most `time`; true when the download has ended, so that [`wait`](Self::wait)
    /// returns at once.
    pub fn wait_for(&self, time: Duration) -> bool {
        let mut early = lock(&self.early);
        if early.is_none() {
            match self.result.recv_timeout(time) {
                Ok(result) => *early = Some(result),
                Err(RecvTimeoutError::Disconnected) => *early = Some(lost()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        early.is_some()
    }

    /// How far the download is.
    pub fn progress(&self) -> Progress {
        let files = &self.shared.files;
        let (places, bytes) = (files.iter().map(|f| f.outs.len()).sum(), files.iter().map(|f| f.id.len).sum());
        self.shared.stats.progress(Phase::Fetching, places, bytes)
    }

    /// The readers of its only file need these chunks.
    pub(crate) fn set_windows(&self, windows: Vec<ReadWindow>) {
        self.shared.read_on(0, windows);
    }

    /// Ends the download soon, with everything kept for the next run; [`wait`](Self::wait) then
    /// returns [`FetchError::Cancelled`].
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

/// Starts the threads of a download; the coordinator sends the result to `tell`. Threads that wait for
/// the disk start when they are needed.
fn spawn(
    threads: &mut Workers,
    shared: &Arc<DownloadShared>,
    connections: &Arc<BlockingPool>,
    receivers: DiskReceivers,
    tell: Sender<DownloadEnd>,
) -> io::Result<()> {
    let DiskReceivers { jobs, small } = receivers;
    let weak = Arc::downgrade(shared);
    shared.queues.jobs.starts(move |workers, i| {
        let (Some(shared), jobs) = (weak.upgrade(), jobs.clone()) else { return Ok(()) };
        let run = shared.clone();
        let started = workers.spawn(&format!("gpb-disk-{i}"), move || disk_workers::run_jobs(&run, &jobs));
        fail_without(&shared, i, started)
    });
    let weak = Arc::downgrade(shared);
    shared.queues.small.starts(move |workers, i| {
        let (Some(shared), small) = (weak.upgrade(), small.clone()) else { return Ok(()) };
        let run = shared.clone();
        let started = workers.spawn(&format!("gpb-small-{i}"), move || disk_workers::write_small(&run, &small));
        fail_without(&shared, i, started)
    });
    let (checker, others) = (shared.clone(), shared.terms.joins.begin(shared));
    // A look at a few small files takes less time than a thread.
    let (files, bytes) = (shared.files.len(), shared.files.iter().map(|f| f.id.len).fold(0, u64::saturating_add));
    if files <= CHECK_AT_ONCE_FILES && bytes <= CHECK_AT_ONCE_LEN {
        disk_workers::check(&checker, &others);
    } else {
        threads.spawn("gpb-check", move || disk_workers::check(&checker, &others))?;
    }
    let mut coordinator = Coordinator::new(shared.clone(), connections.clone());
    let notify = shared.terms.notify.clone();
    threads.spawn("gpb-download", move || {
        let _ = tell.send(coordinator.run());
        notify();
    })
}

/// Without its first thread a queue is never worked off. Further ones only make it quicker.
fn fail_without(shared: &DownloadShared, number: usize, started: io::Result<()>) -> io::Result<()> {
    started.map_err(|e| {
        let kind = e.kind();
        if number == 0 {
            shared.fail(FetchError::Threads(e));
        }
        kind.into()
    })
}

/// The end of a download whose coordinator was lost.
fn lost() -> DownloadEnd {
    DownloadEnd { report: Report::default(), error: Some(Arc::new(FetchError::Cancelled)) }
}
