//! A download: many files from everyone who holds them.

use crate::identity::NodeId;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded, unbounded};
use crossbeam::sync::WaitGroup;

use crate::client::driver::Driver;
use crate::client::limits::{DISK_THREADS, SMALL_THREADS};
use crate::client::search_results::by_content;
use crate::client::shared::{Shared, Wanted};
use crate::client::storing;
use crate::client::{Client, FetchError, FileReport, Progress, Report};
use crate::content::{FileId, RelPath};
use crate::runtime::{OnBegin, Workers};
use crate::store::Disk;
use crate::swarm::Extent;

/// What to fetch.
pub struct DownloadPlan {
    /// The files.
    pub targets: Vec<Target>,
    /// Where they go.
    pub disk: Arc<Disk>,
}

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name under which it is shared.
    pub path: RelPath,
    /// Its content.
    pub id: FileId,
    /// Where it goes, below the directory of the plan's disk.
    pub out: RelPath,
    /// Who is known to hold it; others are found meanwhile.
    pub holders: Arc<[NodeId]>,
}

/// A running download.
pub struct Download;

/// A running download. Dropping it cancels it and waits for its threads.
pub struct DownloadHandle {
    shared: Arc<Shared>,
    total: u64,
    result: Receiver<Result<Report, FetchError>>,
    early: Mutex<Option<Result<Report, FetchError>>>,
    threads: Option<Workers>,
    _stop: OnBegin,
}

impl Download {
    /// Starts to fetch the files of `plan`. Files that are there already are only counted; equal contents are fetched
    /// once. Sessions of `pool` are used again.
    ///
    /// # Errors
    /// [`FetchError::Threads`]: the system has no thread to give.
    pub fn start(plan: DownloadPlan, client: &Client) -> Result<DownloadHandle, FetchError> {
        let Client { ctx, pool, threads: crew } = client;
        let (jobs, jobs_rx) = unbounded();
        let (small, small_rx) = unbounded();
        let (files, holders) = merge(plan.targets);
        let total = files.iter().map(|f| f.id.len).sum();
        let seed = rand::random();
        let shared = Arc::new(Shared::new(ctx.clone(), pool.clone(), plan.disk, files, seed, (jobs, small)));
        let mut driver = Driver::new(shared.clone(), crew.clone());
        {
            let mut state = shared.state();
            for (file, holders) in (0..).zip(holders) {
                for &key in &*holders {
                    if let Some(handle) = state.peer(key) {
                        state.set_held(file, handle, Extent::Whole);
                    }
                }
            }
        }
        let (tell, result) = bounded(1);
        let mut threads = Workers::default();
        let disk = WaitGroup::new();
        let spawned = (|| {
            for i in 0..DISK_THREADS {
                let (shared, jobs, working) = (shared.clone(), jobs_rx.clone(), disk.clone());
                threads.spawn(&format!("gpb-disk-{i}"), move || {
                    storing::store(&shared, &jobs);
                    drop((jobs, working));
                })?;
            }
            drop(jobs_rx);
            for i in 0..SMALL_THREADS {
                let (shared, small, working) = (shared.clone(), small_rx.clone(), disk.clone());
                threads.spawn(&format!("gpb-small-{i}"), move || {
                    storing::write_small(&shared, &small);
                    drop((small, working));
                })?;
            }
            drop(small_rx);
            let checker = shared.clone();
            threads.spawn("gpb-check", move || storing::check(&checker))?;
            threads.spawn("gpb-download", move || drop(tell.send(driver.run(disk))))
        })();
        if let Err(e) = spawned {
            shared.stop();
            end_disk(&shared);
            return Err(FetchError::Threads(e));
        }
        let weak = Arc::downgrade(&shared);
        let stop = ctx.shutdown.while_held(move || {
            if let Some(shared) = weak.upgrade() {
                shared.stop();
            }
        });
        Ok(DownloadHandle { shared, total, result, early: Mutex::default(), threads: Some(threads), _stop: stop })
    }
}

impl DownloadHandle {
    /// Waits until the download has ended. Blocks at most the context's timeout without a byte, however long the
    /// files.
    ///
    /// # Errors
    /// [`FetchError`]; what came is kept for the next run.
    pub fn wait(self) -> Result<Report, FetchError> {
        if let Some(early) = self.early.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return early;
        }
        self.result.recv().unwrap_or(Err(FetchError::Interrupted))
    }

    /// Waits for at most `time`; true when the download has ended, so that [`wait`](Self::wait) returns at once.
    pub fn wait_for(&self, time: Duration) -> bool {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.is_none() {
            match self.result.recv_timeout(time) {
                Ok(result) => *early = Some(result),
                Err(RecvTimeoutError::Disconnected) => *early = Some(Err(FetchError::Interrupted)),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        early.is_some()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let tally = &self.shared.tally;
        let fetched = tally.bytes.load(Ordering::Relaxed);
        Progress {
            files: self.shared.files.len(),
            files_done: self.shared.files.len() - self.shared.state().unfinished(),
            bytes: self.total,
            bytes_done: (fetched + tally.there.load(Ordering::Relaxed)).min(self.total),
            bytes_fetched: fetched,
            seconds: tally.begun.elapsed().as_secs_f64(),
            peers: tally.of_peers.lock().unwrap_or_else(PoisonError::into_inner).len(),
        }
    }

    /// The paths that were put in place since the last call.
    pub fn fetched(&self, seen: &mut usize) -> Vec<FileReport> {
        let reports = self.shared.tally.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let new = reports.get(*seen..).unwrap_or_default().to_vec();
        *seen += new.len();
        new
    }

    /// Ends it soon, with everything kept for the next run; [`wait`](Self::wait) then says
    /// [`FetchError::Interrupted`].
    pub fn cancel(&self) {
        self.shared.stop();
    }
}

impl Drop for DownloadHandle {
    fn drop(&mut self) {
        self.shared.stop();
        drop(self.threads.take());
    }
}

/// Tells the disk threads and the writer to end when they have done what is before them.
pub(crate) fn end_disk(shared: &Shared) {
    for _ in 0..DISK_THREADS {
        let _ = shared.jobs.send(storing::Job::End);
    }
    for _ in 0..SMALL_THREADS {
        let _ = shared.small.send(None);
    }
}

/// Brings targets of one content together, in the order of their first ones.
fn merge(targets: Vec<Target>) -> (Vec<Wanted>, Vec<Arc<[NodeId]>>) {
    // For each target, the first one with its content.
    let mut first: Vec<u32> = vec![0; targets.len()];
    for group in by_content(&targets, |t| &t.id).chunk_by(|&a, &b| targets[a].id == targets[b].id) {
        group.iter().for_each(|&at| first[at] = group[0] as u32);
    }
    let mut files: Vec<Wanted> = Vec::new();
    let mut holders: Vec<Arc<[NodeId]>> = Vec::new();
    for (at, target) in targets.into_iter().enumerate() {
        let leader = first[at] as usize;
        if leader == at {
            first[at] = files.len() as u32;
            files.push(Wanted { id: target.id, path: target.path, outs: vec![target.out] });
            holders.push(target.holders);
            continue;
        }
        let file = first[leader] as usize;
        files[file].outs.push(target.out);
        if !Arc::ptr_eq(&holders[file], &target.holders) {
            let mut all: Vec<NodeId> = [&*holders[file], &*target.holders].concat();
            all.sort_unstable();
            all.dedup();
            holders[file] = all.into();
        }
    }
    for file in files.iter_mut().filter(|f| f.outs.len() > 1) {
        file.outs.sort_unstable();
        file.outs.dedup();
    }
    (files, holders)
}
