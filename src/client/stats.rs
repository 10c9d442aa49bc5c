//! The counters of a download.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::FileReport;
use crate::client::limits::DEFERRED_MAX;
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
            by_peer: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// Bytes came, or something else shows that the download makes progress.
    pub(crate) fn progressed(&self) {
        let now_ms = self.begun.elapsed().as_millis() as u64;
        self.progress_ms.store(now_ms, Ordering::Relaxed);
        self.arrival_ms.store(now_ms, Ordering::Relaxed);
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
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.by_peer).entry(handle).or_insert((peer, 0)).1 += bytes;
    }

    /// `bytes` came and are of no use.
    pub(crate) fn waste(&self, bytes: u32) {
        self.wasted.fetch_add(bytes.into(), Ordering::Relaxed);
    }
}
