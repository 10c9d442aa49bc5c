//! The counters of a download.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::FileReport;
use crate::client::limits::{DEFERRED_MAX, PROGRESS_LEN};
use crate::identity::PeerId;
use crate::swarm::PeerHandle;
use crate::sync::lock;

/// The counters of a download.
pub(crate) struct Stats {
    pub(crate) begun: Instant,
    /// Bytes that were on the disk before.
    pub(crate) there: AtomicU64,
    /// Verified bytes that were wanted.
    pub(crate) bytes: AtomicU64,
    /// Bytes that were of no use.
    pub(crate) wasted: AtomicU64,
    /// Dials after a failure.
    pub(crate) retries: AtomicU64,
    /// Requests that another peer had to answer.
    pub(crate) redirects: AtomicU64,
    /// Bytes of an earlier run that were hashed again.
    pub(crate) rehashed: AtomicU64,
    /// When something last showed that the download makes progress, in ms since `begun`.
    progress_ms: AtomicU64,
    /// The same, deferrals left out.
    arrival_ms: AtomicU64,
    /// Bytes of layers and chunks that came, good or not.
    arrived: AtomicU64,
    /// Verified, wanted bytes of each peer.
    pub(crate) by_peer: Mutex<HashMap<PeerHandle, (PeerId, u64)>>,
    /// The paths that are in place.
    pub(crate) reports: Mutex<Vec<FileReport>>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Stats {
            begun: Instant::now(),
            there: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wasted: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            redirects: AtomicU64::new(0),
            rehashed: AtomicU64::new(0),
            progress_ms: AtomicU64::new(0),
            arrival_ms: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            by_peer: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// A chunk or layer was verified, or something else shows that the download makes progress.
    pub(crate) fn progressed(&self) {
        let now_ms = self.begun.elapsed().as_millis() as u64;
        self.progress_ms.store(now_ms, Ordering::Relaxed);
        self.arrival_ms.store(now_ms, Ordering::Relaxed);
    }

    /// `n` bytes of a layer or chunk came. They may be of no use: only each [`PROGRESS_LEN`] bytes
    /// of all peers together count as progress, so that peers that drip do not keep a download
    /// alive.
    pub(crate) fn arrived(&self, n: u64) {
        let before = self.arrived.fetch_add(n, Ordering::Relaxed);
        if (before + n) / PROGRESS_LEN > before / PROGRESS_LEN {
            self.progressed();
        }
    }

    /// A peer deferred a request: it is there and its queue moves. That counts as progress, but not
    /// longer than [`DEFERRED_MAX`] after the last arrival.
    pub(crate) fn deferred(&self) {
        let now = self.begun.elapsed();
        let arrival = Duration::from_millis(self.arrival_ms.load(Ordering::Relaxed));
        if now.saturating_sub(arrival) < DEFERRED_MAX {
            self.progress_ms.store(now.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Time since the last progress.
    pub(crate) fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.progress_ms.load(Ordering::Relaxed)))
    }

    /// `bytes` came from a peer, verified and wanted.
    pub(crate) fn credit(&self, handle: PeerHandle, peer: PeerId, bytes: u64) {
        self.progressed();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.by_peer).entry(handle).or_insert((peer, 0)).1 += bytes;
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
        std::thread::sleep(Duration::from_millis(20));
        (1..PROGRESS_LEN).for_each(|_| stats.arrived(1));
        assert_eq!(stats.progress_ms.load(Ordering::Relaxed), 0);
        stats.arrived(1);
        assert!(stats.progress_ms.load(Ordering::Relaxed) >= 20);
    }
}
