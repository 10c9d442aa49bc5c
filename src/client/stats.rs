//! The counters of a download.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::joins::Lent;
use crate::client::limits::{DEFERRED_MAX, PROGRESS_LEN};
use crate::client::{FailedFile, FileReport, LocalBytes, Phase, Progress, Report};
use crate::identity::{NodeId, PeerId};
use crate::sync::lock;

/// The counters of a download. A download that resumes after a pause has the counters of the one
/// before.
pub(crate) struct Stats {
    pub(crate) begun: Instant,
    pub(crate) local: LocalCounts,
    /// Bytes of unfinished files that were there when the download went on after a pause: they are
    /// counted again as they are found on the disk.
    carried: AtomicU64,
    /// Bytes that other downloads have of the files that this one waits for.
    borrowed: AtomicU64,
    /// Verified bytes that were wanted.
    pub(crate) bytes: AtomicU64,
    /// Bytes that were of no use.
    pub(crate) wasted: AtomicU64,
    /// Dials after a failure.
    pub(crate) retries: AtomicU64,
    /// Requests that another peer had to answer.
    pub(crate) redirects: AtomicU64,
    pulse: Pulse,
    /// The number of places that each file is to be put at, where not all may fit onto the disk.
    pub(crate) to_fill: Mutex<Arc<[u32]>>,
    /// Verified, wanted bytes of each node.
    pub(crate) by_peer: Mutex<HashMap<NodeId, u64>>,
    /// The paths that are in place.
    pub(crate) reports: Mutex<Vec<FileReport>>,
}

/// Bytes that no peer sent in this download.
#[derive(Default)]
pub(crate) struct LocalCounts {
    /// They were in place, or in a partial file.
    pub(crate) there: AtomicU64,
    /// They were copied from other files on the disk.
    pub(crate) reused: AtomicU64,
    /// They are zeros, and were not written.
    pub(crate) holes: AtomicU64,
    /// They are of an earlier run, and were hashed again.
    pub(crate) rehashed: AtomicU64,
}

impl LocalCounts {
    fn report(&self) -> LocalBytes {
        let [reused, holes, rehashed] = [&self.reused, &self.holes, &self.rehashed].map(|n| n.load(Ordering::Relaxed));
        LocalBytes { reused, holes, rehashed }
    }
}

/// When the download last showed progress.
#[derive(Default)]
struct Pulse {
    /// When something last showed that the download makes progress, in ms since it began.
    progress_ms: AtomicU64,
    /// The same, deferrals left out.
    arrival_ms: AtomicU64,
    /// Bytes of layers and chunks that came, good or not.
    arrived: AtomicU64,
    /// The same since a layer or a wanted chunk was verified.
    unverified: AtomicU64,
    /// So many of them may be on their way to be verified.
    unverified_max: AtomicU64,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Stats {
            begun: Instant::now(),
            local: LocalCounts::default(),
            carried: AtomicU64::new(0),
            borrowed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wasted: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            redirects: AtomicU64::new(0),
            pulse: Pulse::default(),
            to_fill: Mutex::default(),
            by_peer: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// A chunk or layer was verified, or something else shows that the download makes progress.
    pub(crate) fn progressed(&self) {
        let now_ms = self.begun.elapsed().as_millis() as u64;
        self.pulse.progress_ms.store(now_ms, Ordering::Relaxed);
        self.pulse.arrival_ms.store(now_ms, Ordering::Relaxed);
    }

    /// `n` bytes of a layer or chunk came. They may be of no use: only each [`PROGRESS_LEN`] bytes
    /// of all peers together count as progress, so that peers that drip do not keep a download
    /// alive; and no more than [`await_verification`](Self::await_verification) allows, so that
    /// peers do not that never bring a chunk to its end.
    pub(crate) fn arrived(&self, n: u64) {
        let before = self.pulse.arrived.fetch_add(n, Ordering::Relaxed);
        let unverified = self.pulse.unverified.fetch_add(n, Ordering::Relaxed) + n;
        let is_awaited = unverified <= self.pulse.unverified_max.load(Ordering::Relaxed);
        if is_awaited && (before + n) / PROGRESS_LEN > before / PROGRESS_LEN {
            self.progressed();
        }
    }

    /// Up to so many bytes may be on their way at once: as much is progress before any of it is
    /// verified.
    pub(crate) fn await_verification(&self, bytes: u64) {
        self.pulse.unverified_max.fetch_max(bytes, Ordering::Relaxed);
    }

    /// A layer or a wanted chunk is right.
    pub(crate) fn verified(&self) {
        self.pulse.unverified.store(0, Ordering::Relaxed);
        self.progressed();
    }

    /// A peer deferred a request: it is there and its queue moves. That counts as progress, but not
    /// longer than [`DEFERRED_MAX`] after the last arrival.
    pub(crate) fn deferred(&self) {
        let now = self.begun.elapsed();
        let arrival = Duration::from_millis(self.pulse.arrival_ms.load(Ordering::Relaxed));
        if now.saturating_sub(arrival) < DEFERRED_MAX {
            self.pulse.progress_ms.store(now.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Time since the last progress.
    pub(crate) fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.pulse.progress_ms.load(Ordering::Relaxed)))
    }

    /// `bytes` came from a peer, verified and wanted.
    pub(crate) fn credit(&self, peer: NodeId, bytes: u64) {
        self.verified();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        *lock(&self.by_peer).entry(peer).or_default() += bytes;
    }

    /// The download resumes after a pause, with files of `finished` bytes in place.
    pub(crate) fn resume(&self, finished: u64) {
        let unfinished = self.bytes_done().saturating_sub(finished);
        self.carried.fetch_add(unfinished, Ordering::Relaxed);
        self.progressed();
    }

    /// All of the `len` bytes are there, whichever download brought them.
    pub(crate) fn complete(&self, len: u64) {
        self.local.there.fetch_add(len.saturating_sub(self.bytes_done()), Ordering::Relaxed);
    }

    /// Bytes that are there.
    fn bytes_done(&self) -> u64 {
        let borrowed = self.borrowed.load(Ordering::Relaxed);
        let fetched = self.bytes.load(Ordering::Relaxed);
        let here =
            [&self.local.there, &self.local.reused, &self.local.holes].map(|bytes| bytes.load(Ordering::Relaxed));
        (fetched + borrowed + here.iter().sum::<u64>()).saturating_sub(self.carried.load(Ordering::Relaxed))
    }

    /// Bytes that are there and places that are filled: both change only when it is further.
    pub(crate) fn mark(&self) -> (u64, usize) {
        (self.bytes_done(), lock(&self.reports).len())
    }

    /// How far a download of `files` places and `bytes` in all is.
    pub(crate) fn progress(&self, phase: Phase, files: usize, bytes: u64) -> Progress {
        Progress {
            phase,
            files,
            files_done: lock(&self.reports).len(),
            bytes,
            bytes_done: self.bytes_done().min(bytes),
            bytes_fetched: self.bytes.load(Ordering::Relaxed),
            seconds: self.begun.elapsed().as_secs_f64(),
            peers: self.by_key().len(),
        }
    }

    /// What was reached below `dir` by now, and what `failed`.
    pub(crate) fn report(&self, dir: PathBuf, failed: Vec<FailedFile>) -> Report {
        let fetched = lock(&self.reports).clone();
        Report {
            dir,
            files: fetched.len(),
            skipped: fetched.iter().filter(|f| f.skipped).count(),
            bytes: self.bytes.load(Ordering::Relaxed),
            local: self.local.report(),
            seconds: self.begun.elapsed().as_secs_f64(),
            retries: self.retries.load(Ordering::Relaxed),
            wasted: self.wasted.load(Ordering::Relaxed),
            redirects: self.redirects.load(Ordering::Relaxed),
            peers: self.by_key(),
            fetched,
            failed,
        }
    }

    /// The bytes that each key gave, most first.
    pub(crate) fn by_key(&self) -> Vec<(PeerId, u64)> {
        let mut by_key: HashMap<PeerId, u64> = HashMap::new();
        for (node, bytes) in &*lock(&self.by_peer) {
            *by_key.entry(node.peer).or_default() += bytes;
        }
        let mut peers: Vec<_> = by_key.into_iter().collect();
        peers.sort_unstable_by_key(|&(peer, bytes)| (std::cmp::Reverse(bytes), peer));
        peers
    }

    /// What other downloads have done for this one. Their progress is progress of this one.
    pub(crate) fn borrowed(&self, lent: Option<Lent>) {
        self.borrowed.store(lent.map_or(0, |lent| lent.bytes), Ordering::Relaxed);
        if let Some(lent) = lent {
            let at_ms = self.begun.elapsed().saturating_sub(lent.silence).as_millis() as u64;
            self.pulse.progress_ms.fetch_max(at_ms, Ordering::Relaxed);
        }
    }

    /// `bytes` came and are of no use.
    pub(crate) fn waste(&self, bytes: u32) {
        self.wasted.fetch_add(bytes.into(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_progress_once_enough_came() {
        let stats = Stats::new();
        stats.await_verification(2 * PROGRESS_LEN);
        std::thread::sleep(Duration::from_millis(20));
        (1..PROGRESS_LEN).for_each(|_| stats.arrived(1));
        assert_eq!(stats.pulse.progress_ms.load(Ordering::Relaxed), 0);
        stats.arrived(1);
        assert!(stats.pulse.progress_ms.load(Ordering::Relaxed) >= 20);
    }

    /// A server that was started again four times counted as five peers.
    #[test]
    fn a_peer_that_was_started_again_is_one_peer() {
        let stats = Stats::new();
        let peers = [PeerId([1; 32]), PeerId([2; 32])];
        for (peer, instance) in [(peers[0], 1), (peers[0], 2), (peers[1], 1)] {
            stats.credit(NodeId::new(peer, instance), 10);
        }
        assert_eq!(stats.progress(Phase::Fetching, 1, 100).peers, 2);
        assert_eq!(stats.by_key(), [(peers[0], 20), (peers[1], 10)]);
    }

    /// Peers that sent half of each chunk kept a download alive for ever.
    #[test]
    fn bytes_that_are_never_verified_are_no_progress_in_the_end() {
        let stats = Stats::new();
        stats.await_verification(2 * PROGRESS_LEN);
        let comes = || {
            stats.pulse.progress_ms.store(0, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            stats.arrived(PROGRESS_LEN);
            stats.pulse.progress_ms.load(Ordering::Relaxed) > 0
        };
        assert_eq!([comes(), comes(), comes()], [true, true, false]);
        stats.verified();
        assert!(comes());
    }
}
