//! What the threads of one download share.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use log::{debug, warn};

use crate::chain::Chain;
use crate::client::active_sessions::ActiveSessions;
use crate::client::buffers::Buffers;
use crate::client::disk_queues::{DiskJob, DiskQueues};
use crate::client::doorbell::Doorbell;
use crate::client::failed::FailedPlaces;
use crate::client::joins::{FileFate, JoinedDownload, Joins, Lent, WholeFile};
use crate::client::limits::JOIN_FILES_MAX;
use crate::client::readings::{Reading, Readings};
use crate::client::stats::Stats;
use crate::client::targets::FileTarget;
use crate::client::{Client, ClientContext, FailedFile, FetchError};
use crate::content::{FileId, RelPath};
use crate::identity::{NodeId, PeerId};
use crate::limits::{SILENCE_MAX, SILENCE_MIN};
use crate::peers::PeerPool;
use crate::runtime::Throttle;
use crate::store::{Disk, PartialFile, StoreError};
use crate::swarm::{DownloadState, Event, FileNo, PeerHandle, ReadWindow};
use crate::sync::{lock, wait_timeout};

/// What the threads of one download share. Locks are held for moments only, never over I/O; the one
/// exception is [`DiskQueues::small_turn`].
pub(crate) struct DownloadShared {
    pub(crate) ctx: Arc<ClientContext>,
    pub(crate) pool: Arc<PeerPool>,
    pub(crate) disk: Arc<Disk>,
    /// The files, each content once.
    pub(crate) files: Vec<FileTarget>,
    state: WorkState,
    /// Wakes the coordinator.
    pub(crate) bell: Doorbell,
    pub(crate) buffers: Buffers,
    pub(crate) queues: DiskQueues,
    pub(crate) stats: Arc<Stats>,
    pub(crate) sessions: ActiveSessions,
    pub(crate) terms: Terms,
    verdict: Verdict,
}

/// What the state of the download is behind, and what connections without work wait for.
struct WorkState {
    state: Mutex<DownloadState<Arc<PartialFile>>>,
    changed: Condvar,
}

/// What the caller of a download asked for besides the files.
pub(crate) struct Terms {
    /// The only nodes that are asked.
    pub(crate) sources: Option<Arc<[NodeId]>>,
    /// The limit of this download, besides that of the node, and as its caller set it.
    pub(crate) limit: (Throttle, Option<u64>),
    /// Called when the download is further, or over.
    pub(crate) notify: Arc<dyn Fn() + Send + Sync>,
    /// The other downloads of the node.
    pub(crate) joins: Arc<Joins>,
    /// This download has waited for a file of another one.
    pub(crate) has_joined: AtomicBool,
    /// What the node reads while it is fetched, by this download or another one.
    pub(crate) readings: Arc<Readings>,
    /// What this download is for, if its only file has readers and no place.
    pub(crate) reading: Option<Arc<Reading>>,
}

/// Why a download ends.
#[derive(Default)]
struct Verdict {
    stopped: AtomicBool,
    failure: Mutex<Option<Arc<FetchError>>>,
    /// What cannot be fetched while the rest is.
    places: Mutex<FailedPlaces>,
    /// Peers that sent wrong bytes.
    liars: Mutex<Vec<PeerId>>,
    /// Files that a holder found changed on its disk.
    changed: Mutex<HashSet<FileNo>>,
}

impl DownloadShared {
    /// A download of files to a disk; the names that failed are known to.
    pub(crate) fn new(
        client: &Client,
        what: (Arc<Disk>, Vec<FileTarget>, Vec<FailedFile>),
        queues: DiskQueues,
        stats: Arc<Stats>,
        terms: Terms,
    ) -> Self {
        let (disk, files, failed) = what;
        let ids: Vec<FileId> = files.iter().map(|f| f.id).collect();
        DownloadShared {
            ctx: client.ctx.clone(),
            pool: client.pool.clone(),
            disk,
            files,
            state: WorkState { state: Mutex::new(DownloadState::new(&ids, rand::random())), changed: Condvar::new() },
            bell: Doorbell::new(),
            buffers: Buffers::default(),
            queues,
            stats,
            sessions: ActiveSessions::default(),
            terms,
            verdict: Verdict { places: Mutex::new(FailedPlaces::new(failed)), ..Verdict::default() },
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, DownloadState<Arc<PartialFile>>> {
        lock(&self.state.state)
    }

    /// Waits until the state of `held` has changed, at most for `time`.
    pub(crate) fn wait_for_work(&self, held: MutexGuard<'_, DownloadState<Arc<PartialFile>>>, time: Duration) {
        drop(wait_timeout(&self.state.changed, held, time));
    }

    /// Takes up to `want` of `left` bytes from the limits of the download and of the node.
    ///
    /// # Errors
    /// The time after which a call can succeed.
    pub(crate) fn grant(&self, want: usize, left: usize, now: Instant) -> Result<usize, Duration> {
        let own = self.terms.limit.0.take(want, left, now)?;
        let granted = self.ctx.throttle.take(own, left, now);
        self.terms.limit.0.put_back(own - granted.unwrap_or(0).min(own));
        granted
    }

    /// Wakes the connections without work.
    pub(crate) fn wake_connections(&self) {
        self.state.changed.notify_all();
    }

    /// Wakes the connections without work, and the coordinator.
    pub(crate) fn wake_all(&self) {
        self.state.changed.notify_all();
        self.bell.ring();
    }

    /// Ends the download because of `error`; the first one counts.
    pub(crate) fn fail(&self, error: FetchError) {
        self.failing(error);
        self.stop();
    }

    /// The error that the download ends because of: `error`, unless there was one.
    fn failing(&self, error: FetchError) -> Arc<FetchError> {
        lock(&self.verdict.failure).get_or_insert_with(|| error.into()).clone()
    }

    /// Whether the download ends because of an error.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.verdict.failure).is_some()
    }

    pub(crate) fn take_failure(&self) -> Option<Arc<FetchError>> {
        lock(&self.verdict.failure).take()
    }

    /// The places where a file can go, as far as is known.
    pub(crate) fn places(&self, file: FileNo) -> Cow<'_, [RelPath]> {
        let outs = &self.files[file as usize].outs;
        lock(&self.verdict.places).usable(file, outs).map_or(Cow::Borrowed(outs), Cow::Owned)
    }

    /// `place` of a file cannot be used, which ends the download only if the whole disk cannot.
    pub(crate) fn fail_place(&self, file: FileNo, place: &RelPath, error: StoreError) {
        let is_of_disk = error.is_of_whole_disk(self.disk.path());
        let error = if is_of_disk { self.failing(error.into()) } else { Arc::new(error.into()) };
        // A file that is at another place already counts as done, so the end would leave this out.
        self.note_failed_at(file, std::slice::from_ref(place), &error);
        if is_of_disk {
            self.stop();
        }
    }

    /// A file cannot be put anywhere, which ends the download only if the whole disk cannot be
    /// used.
    pub(crate) fn fail_file(&self, file: FileNo, error: StoreError) {
        if error.is_of_whole_disk(self.disk.path()) {
            return self.fail(error.into());
        }
        self.fail_alone(file, error);
    }

    /// A file cannot be put anywhere, and others may be.
    pub(crate) fn fail_alone(&self, file: FileNo, error: StoreError) {
        self.note_failed(file, &Arc::new(error.into()));
        self.state().finished(file);
        self.settled(file);
        self.wake_all();
    }

    /// A file came into place, or failed: other downloads may wait for it.
    pub(crate) fn settled(&self, file: FileNo) {
        self.terms.joins.settled(self, file, self.files[file as usize].id);
    }

    /// A file is at none of its places because of `error`.
    pub(crate) fn note_failed(&self, file: FileNo, error: &Arc<FetchError>) {
        self.note_failed_at(file, &self.places(file), error);
    }

    /// A file is not at these places because of `error`.
    pub(crate) fn note_failed_at(&self, file: FileNo, places: &[RelPath], error: &Arc<FetchError>) {
        let target = &self.files[file as usize];
        debug!("not fetched path={} file={} error=\"{}\"", target.path, target.id, Chain(&**error));
        for place in places {
            // A content has one name here, or is named by its places.
            let name = if let [_] = &*target.outs { &target.path } else { place };
            lock(&self.verdict.places).add(file, place, name, error.clone());
        }
    }

    /// What failed so far.
    pub(crate) fn failed(&self) -> Vec<FailedFile> {
        lock(&self.verdict.places).all.clone()
    }

    /// `peer` sent wrong bytes of `id`: it is not asked again.
    pub(crate) fn strike(&self, handle: PeerHandle, peer: PeerId, id: FileId) {
        self.ctx.peers.traffic().wrong();
        self.ctx.events.emit(Event::PeerLied { peer, id });
        self.state().forget(handle);
        let mut liars = lock(&self.verdict.liars);
        if !liars.contains(&peer) {
            liars.push(peer);
        }
        drop(liars);
        self.wake_all();
    }

    /// A holder of `file` found that it has changed on its disk.
    pub(crate) fn changed_at_source(&self, file: FileNo) {
        lock(&self.verdict.changed).insert(file);
    }

    /// Whether a holder of `file` found that.
    pub(crate) fn is_changed_at_source(&self, file: FileNo) -> bool {
        lock(&self.verdict.changed).contains(&file)
    }

    /// `bytes` came and are of no use.
    pub(crate) fn waste(&self, bytes: u32) {
        self.stats.waste(bytes);
        self.ctx.peers.traffic().wasted(bytes.into());
    }

    /// The peers that sent wrong bytes.
    pub(crate) fn liars(&self) -> Vec<PeerId> {
        lock(&self.verdict.liars).clone()
    }

    /// Cuts off all sessions that something is asked on, and ends all waits; the threads end as soon
    /// as they notice.
    pub(crate) fn stop(&self) {
        self.verdict.stopped.store(true, Ordering::Release);
        self.sessions.cut_busy();
        self.buffers.close();
        self.wake_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.verdict.stopped.load(Ordering::Acquire)
    }

    /// Runs a write to the disk. Meanwhile the download counts as busy, however long the write
    /// takes.
    pub(crate) fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.queues.writing.fetch_add(1, Ordering::Relaxed);
        let result = write();
        self.stats.progressed();
        self.queues.writing.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// The readers of a file need these chunks, of this download or of the one that it waits for.
    pub(crate) fn read_on(&self, file: FileNo, windows: Vec<ReadWindow>) {
        self.set_windows(file, windows.clone());
        self.terms.joins.read_on(self, self.files[file as usize].id, windows);
    }

    /// What it fetches for readers stays after them if a fetch into the same directory waits for it.
    pub(crate) fn keep_awaited(&self, file: FileNo) {
        let Some(part) = self.terms.reading.as_ref().and_then(|reading| reading.part()) else { return };
        let id = &self.files[file as usize].id;
        if self.terms.joins.is_awaited_for(id, &part)
            && let Err(e) = part.unmark()
        {
            warn!("goes with its readers file={id} error=\"{}\"", Chain(&e));
        }
    }

    /// Whether what it fetches is read in memory, so that it has no disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.terms.reading.as_ref().is_some_and(|reading| reading.parts().is_in_memory())
    }

    /// Whether the download waits for its own disk.
    pub(crate) fn disk_is_busy(&self) -> bool {
        self.queues.is_writing() || self.state().disk_is_busy()
    }

    /// Longest wait for a byte on one connection: well below the timeout of the whole, so that
    /// other peers take over.
    pub(crate) fn idle(&self) -> Duration {
        (self.ctx.timeout / 3).clamp(SILENCE_MIN, SILENCE_MAX)
    }
}

impl JoinedDownload for DownloadShared {
    fn is_over(&self) -> bool {
        self.is_stopped()
    }

    fn fate(&self, file: FileNo) -> FileFate {
        let is_done = self.state().is_done(file);
        match self.places(file).first() {
            _ if !is_done => FileFate::Pending,
            Some(_) if self.terms.reading.is_some() => match self.terms.reading.as_ref().and_then(|r| r.part()) {
                Some(part) => FileFate::InPlace(WholeFile { part: Some(part), ..WholeFile::default() }),
                None => FileFate::Failed,
            },
            Some(place) => {
                let path = self.disk.path().join(place.as_str());
                FileFate::InPlace(WholeFile { path, ..WholeFile::default() })
            }
            None => FileFate::Failed,
        }
    }

    fn awaitable(&self) -> Vec<(FileNo, FileId)> {
        self.state().awaitable(JOIN_FILES_MAX)
    }

    fn sources(&self) -> Option<&[NodeId]> {
        self.terms.sources.as_deref()
    }

    fn limit(&self) -> Option<u64> {
        self.terms.limit.1
    }

    fn dir(&self) -> &Path {
        self.disk.path()
    }

    fn lent(&self, file: FileNo) -> Lent {
        Lent { bytes: self.state().bytes_had(file), silence: self.stats.silence() }
    }

    fn set_windows(&self, file: FileNo, windows: Vec<ReadWindow>) {
        let mut state = self.state();
        if state.is_resting() {
            // What is needed from now on has its whole time.
            self.stats.progressed();
        }
        state.set_windows(file, windows);
        drop(state);
        self.wake_connections();
    }

    fn part(&self, file: FileNo) -> Option<Arc<PartialFile>> {
        self.state().open_file(file)
    }

    fn goes_on_from(&self, part: &PartialFile) -> bool {
        self.disk.has_part(part)
    }

    fn set_awaited(&self, file: FileNo, is_awaited: bool) {
        if self.terms.reading.is_some() {
            self.state().set_alone(file, !is_awaited);
            self.keep_awaited(file);
            self.wake_all();
        }
    }

    fn give(&self, file: FileNo, whole: Option<WholeFile>) -> bool {
        let job = match whole {
            Some(from) => DiskJob::TakeOver { file, from },
            None => DiskJob::Own { file },
        };
        self.queues.jobs.send(job).is_ok()
    }
}
